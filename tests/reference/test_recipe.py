"""`trainer.data.folder.suggested_config`: every setting chosen for a folder, for made-up surveys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer.data.folder.layout import ImageFile, Layout
from trainer.data.folder.scan import Finding
from trainer.data.folder.suggested_config import Start, choose
from trainer.data.folder.survey import Survey

RANDOM = Start(reference=None)
IMAGENET = Start(reference="imagenet", stem="imagenet")


def survey(
    counts: Sequence[int], *, size: tuple[int, int] = (32, 32), splits: Sequence[str] = (), broken: int = 0
) -> Survey:
    """The survey of a folder whose images all have one size.

    Args:
        counts: Readable training images of each class.
        size: Width and height.
        splits: Splits besides `train`, with ten images per class; empty for a folder of classes only.
        broken: Number of additional unreadable files of each class.
    """
    root = Path("/pictures")
    folders = {"train": root / "train" if splits else root} | {name: root / name for name in splits}
    files, findings = {}, {}
    for split, folder in folders.items():
        numbers = counts if split == "train" else [10] * len(counts)
        of_split = [(label, index) for label, count in enumerate(numbers) for index in range(count + broken)]
        files[split] = [ImageFile(folder, label, 9, 0, 0) for label, index in of_split]
        findings[split] = [
            Finding(f"{split}{label}-{index}", *size, "RGB", "" if index < numbers[label] else "broken")
            for label, index in of_split
        ]
    classes = tuple(str(label) for label in range(len(counts)))
    layout = Layout(root=root, classes=classes, folders=folders, files=files, notes=[], reading=2)
    return Survey(layout=layout, findings=findings)


def chosen(surveyed: Survey, start: Start = RANDOM, *, gpu: bool = False) -> dict[str, Any]:
    choices = choose(surveyed, name="run", root="pictures", start=start, gpu=gpu)
    assert len({choice.key for choice in choices}) == len(choices), "unique keys"
    return {choice.key: choice.value for choice in choices}


@pytest.mark.parametrize(
    ("train", "batch_size", "lr"),
    [
        (10, 2, 0.0016), (40, 10, 0.0078), (100, 16, 0.0125), (199, 16, 0.0125), (200, 32, 0.025), (4999, 32, 0.025),
        (5000, 128, 0.1),
    ],
)  # fmt: skip
def test_the_rate_for_random_weights_is_proportional_to_the_batch(train: int, batch_size: int, lr: float) -> None:
    """0.05 for a batch of 64, proportional; the batch is 16, 32 or 128, but at most a quarter of the images."""
    settings = chosen(survey([train - train // 2, train // 2], splits=("val",)))
    assert (settings["data.batch_size"], settings["optim.lr"]) == (batch_size, lr)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("train", "batch_size"), [(100, 16), (400, 32), (9000, 32)])
def test_trained_weights_have_a_small_batch_and_the_classifiers_rate(train: int, batch_size: int, gpu: bool) -> None:
    settings = chosen(survey([train // 2] * 2, splits=("val",)), IMAGENET, gpu=gpu)
    assert (settings["data.batch_size"], settings["optim.lr"], settings["optim.layer_decay"]) == (batch_size, 0.05, 0.5)
    assert (settings["optim.weight_decay"], settings["optim.decay_bn_bias"]) == (1e-4, False)
    assert (settings["train.ema_decay"], settings["train.label_smoothing"]) == (0.98, 0.1)
    assert (settings["model.freeze"], settings["model.unfreeze_after"]) == ("backbone", 3)
    assert settings["model.cache_features"] is True
    assert (settings["schedule.warmup"], settings["schedule.warmup_start"]) == (0.3, 0.1)


@pytest.mark.parametrize(
    ("train", "start", "gpu", "epochs"),
    [
        # Wanted steps over steps per epoch: 3000 with a GPU and 1500 without one, between 10 and 200 epochs.
        (3200, RANDOM, True, 30), (3200, RANDOM, False, 15), (6400, RANDOM, False, 30), (25_600, RANDOM, False, 10),
        (160, RANDOM, False, 150), (160, RANDOM, True, 200), (6400, RANDOM, True, 60),
        # From trained weights 1000 and 400, between 8 and 40.
        (3200, IMAGENET, True, 10), (3200, IMAGENET, False, 8), (640, IMAGENET, False, 20), (640, IMAGENET, True, 40),
    ],
)  # fmt: skip
def test_the_number_of_epochs_gives_a_number_of_steps(train: int, start: Start, gpu: bool, epochs: int) -> None:
    assert chosen(survey([train // 2] * 2, splits=("val",)), start, gpu=gpu)["train.epochs"] == epochs


@pytest.mark.parametrize(
    ("smallest", "splits", "val", "test"),
    [
        (20, (), 0.15, 0.15), (19, (), 0.25, None), (4, (), 0.25, None), (3, (), 0.4, None), (20, ("test",), 0.15, None),
        (19, ("test",), 0.0, None), (5, ("val",), None, None), (20, ("val", "test"), None, None),
    ],
)  # fmt: skip
def test_held_out_fractions_depend_on_the_smallest_class_and_the_splits(
    smallest: int, splits: Sequence[str], val: float | None, test: float | None
) -> None:
    """Unreadable files do not count."""
    settings = chosen(survey([smallest, smallest + 5, smallest + 1], splits=splits, broken=30))
    assert (settings.get("data.val_fraction"), settings.get("data.test_fraction")) == (val, test)


def test_held_out_images_do_not_count_for_training() -> None:
    """30 % of 284 images are held out, and `init` chooses a batch size of 16 for the remaining 198."""
    assert chosen(survey([142, 142]))["data.batch_size"] == 16
    assert chosen(survey([144, 144]))["data.batch_size"] == 32


@pytest.mark.parametrize(
    ("size", "start", "gpu", "side", "stem"),
    [
        ((32, 32), RANDOM, False, 32, "cifar-maxpool"), ((32, 32), RANDOM, True, 32, "cifar"),
        ((41, 60), RANDOM, True, 32, "cifar"), ((60, 42), RANDOM, False, 64, "cifar-maxpool"),
        ((83, 83), RANDOM, True, 64, "cifar-maxpool"),
        ((84, 84), RANDOM, False, 128, "imagenet"), ((166, 200), RANDOM, True, 128, "imagenet"),
        ((170, 200), RANDOM, True, 224, "imagenet"), ((500, 400), RANDOM, False, 128, "imagenet"),
        ((95, 200), IMAGENET, True, 128, "imagenet"), ((96, 200), IMAGENET, True, 224, "imagenet"),
        ((96, 200), IMAGENET, False, 128, "imagenet"),
        ((500, 400), Start(reference="x", stem="cifar", image_size=48), True, 48, "cifar"),
    ],
)  # fmt: skip
def test_size_and_stem_depend_on_the_short_side(
    size: tuple[int, int], start: Start, gpu: bool, side: int, stem: str
) -> None:
    settings = chosen(survey([30, 30], size=size), start, gpu=gpu)
    assert (settings["data.image_size"], settings["model.stem"]) == (side, stem)
    assert settings["model.init_from"] == start.reference


@pytest.mark.parametrize(
    ("size", "fit"), [((160, 100), None), ((162, 100), "letterbox"), ((100, 162), "letterbox"), ((100, 160), None)]
)
def test_elongated_images_are_letterboxed(size: tuple[int, int], fit: str | None) -> None:
    assert chosen(survey([30, 30], size=size)).get("data.fit") == fit


@pytest.mark.parametrize(("counts", "balance"), [([90, 30], None), ([91, 30], "sampler"), ([30, 40, 91], "sampler")])
def test_classes_are_balanced_if_the_largest_is_over_three_times_the_smallest(
    counts: list[int], balance: str | None
) -> None:
    assert chosen(survey(counts)).get("data.balance") == balance


@pytest.mark.parametrize(
    ("train", "size", "start", "wanted"),
    [
        (1998, 32, RANDOM, {"crop_pad": 4}), (2000, 32, RANDOM, {"crop_pad": 4, "mixup": 0.2}),
        (1998, 64, RANDOM, {"resized_crop": 0.25, "trivial_augment": True}),
        (2000, 64, RANDOM, {"resized_crop": 0.25, "mixup": 0.2}),
        (400, 200, IMAGENET, {"resized_crop": 0.35, "trivial_augment": True}),
    ],
)  # fmt: skip
def test_augmentation_depends_on_the_size_and_number_of_images(
    train: int, size: int, start: Start, wanted: dict[str, object]
) -> None:
    settings = chosen(survey([train // 2] * 2, size=(size, size), splits=("val",)), start)
    names = ("crop_pad", "resized_crop", "trivial_augment", "mixup")
    assert {name: settings[f"data.{name}"] for name in names if f"data.{name}" in settings} == wanted
    assert settings["data.flip"] == "random"


@pytest.mark.parametrize(
    ("counts", "splits", "best_by"),
    [
        ([3334, 3334], (), None), ([3330, 3330], (), "loss"), ([3334, 3334], ("test",), None), ([60, 60], ("test",), "loss"),
        ([5000, 5000], ("val",), "loss"), ([10] * 100, ("val",), None), ([10] * 99, ("val",), "loss"),
        ([10] * 100, ("test",), None),
    ],
)  # fmt: skip
def test_the_best_is_chosen_by_accuracy_from_a_thousand_images_on(
    counts: list[int], splits: Sequence[str], best_by: str | None
) -> None:
    """A thousand images of val, of the fraction that becomes val, or else of test."""
    assert chosen(survey(counts, splits=splits)).get("eval.best_by") == best_by
