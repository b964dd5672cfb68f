"""Derives a configuration from a survey of a folder, each choice with its reason. Torch-free.

Sources of the recipes: fastai's `fine_tune` (a frozen backbone first, then lower rates for earlier stages); Kolesnikov et al.,
Big Transfer, arXiv:1912.11370 (sizes, and mixing only with many images); Kumar et al., arXiv:2202.10054 (the classifier first).
The results on this project's data are in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainer.data.folder.survey import Survey

_LONG = 1.6  # ratio of long to short side above which a centre crop loses too much
_IMBALANCED = 3.0  # ratio of the largest class to the smallest from which classes are balanced
_MIN_CLASS_FOR_SPLIT = 20  # images of the smallest class needed for a share of 15 % to be meaningful
_MIN_IMAGES_FOR_ACCURACY = 1000  # held-out images needed for their accuracy to select as well as their loss
_MANY = 2000  # training images needed for mixing to help


@dataclass(frozen=True)
class Choice:
    """A chosen dotted key of the configuration, with a reason for people; empty where it is obvious."""

    key: str
    value: Any
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Initial weights of training."""

    reference: str | None  # `model.init_from`; None for random weights
    stem: str | None = None  # of their training; None where unknown
    image_size: int | None = None  # pixels, in their training; None where unknown


def choose(survey: Survey, *, name: str, root: str, start: Start, gpu: bool) -> list[Choice]:
    """Choose settings for a folder, in the order of the configuration; `root` is its path as written there."""
    division = _division(survey)
    kept = 1.0 - sum(float(choice.value) for choice in division)
    num_train = math.floor(sum(survey.counts("train")) * kept)
    size = _size(survey, start, gpu)
    batch = _batch_size(num_train, start)
    return [
        Choice("run.name", name),
        Choice("data.kind", "imagefolder"),
        Choice("data.root", root),
        *division,
        size,
        *_fit(survey),
        batch,
        *_augmentation(num_train, int(size.value), start),
        *_balance(survey),
        *_model(int(size.value), start, gpu),
        *_training(num_train, int(batch.value), start, gpu),
        *_selection(survey, division),
    ]


def _division(survey: Survey) -> list[Choice]:
    """Shares of the training images to hold out."""
    folders, smallest = survey.layout.folders, min(survey.counts("train"))
    enough = smallest >= _MIN_CLASS_FOR_SPLIT
    if "val" in folders:
        return []
    if "test" in folders:
        if enough:
            return [
                Choice("data.val_fraction", 0.15, "selects the best checkpoint; test/ is used only once, at the end")
            ]
        return [Choice("data.val_fraction", 0.0, f"the smallest class has {smallest} images: too few to hold some out")]
    if enough:
        return [
            Choice("data.val_fraction", 0.15, "there are no splits: these images select the best checkpoint,"),
            Choice(
                "data.test_fraction", 0.15, "and these are evaluated once, at the end; copies of a file stay together"
            ),
        ]
    return [
        Choice(
            "data.val_fraction",
            0.25 if smallest >= 4 else 0.4,
            f"there are no splits; the smallest class has {smallest} images, too few for a test split as well",
        )
    ]


def short_sides(survey: Survey) -> list[int]:
    """Short sides of all readable training images, in pixels, ascending."""
    return sorted(min(finding.width, finding.height) for _, finding in survey.usable["train"])


def aspect_ratio(survey: Survey) -> float:
    """Median ratio of long to short side of the training images."""
    return statistics.median(
        max(finding.width, finding.height) / min(finding.width, finding.height) for _, finding in survey.usable["train"]
    )


def _size(survey: Survey, start: Start, gpu: bool) -> Choice:
    short = int(statistics.median(short_sides(survey)))
    pictures = f"half of the pictures have {short} pixels or more on the short side"
    if start.image_size is not None:
        return Choice("data.image_size", start.image_size, "the size that the initial weights were trained with")
    if start.reference is not None and short < 96:
        return Choice("data.image_size", 128, f"{pictures}; ImageNet's stem needs more, so they are enlarged")
    if start.reference is not None:
        if gpu:
            return Choice("data.image_size", 224, f"{pictures}; the ImageNet weights were trained at 224")
        return Choice("data.image_size", 128, f"{pictures}; without a GPU, 128 takes a third of the time of 224")
    for side in (32, 64, 128):
        if short <= side * 1.3:
            return Choice("data.image_size", side, pictures)
    return Choice("data.image_size", 224 if gpu else 128, pictures)


def _fit(survey: Survey) -> Iterator[Choice]:
    ratio = aspect_ratio(survey)
    if ratio > _LONG:
        reason = f"half of the pictures are {ratio:.1f} times as long as wide or more: letterbox keeps all of each"
        yield Choice("data.fit", "letterbox", reason)


def _batch_size(num_train: int, start: Start) -> Choice:
    size = 16 if num_train < 200 else 32 if num_train < 5000 or start.reference else 128
    size = min(size, max(2, num_train // 4))
    return Choice("data.batch_size", size, f"for about {num_train:,} training images")


def _augmentation(num_train: int, size: int, start: Start) -> Iterator[Choice]:
    yield Choice("data.flip", "random", "use none where left and right differ in meaning, as in text")
    smallest = 0.35 if start.reference else 0.25
    if size >= 64:
        yield Choice("data.resized_crop", smallest, "random crops, each at least this share of the picture")
    else:
        yield Choice("data.crop_pad", size // 8, "small pictures are shifted, not cropped")
    if num_train >= _MANY:
        yield Choice("data.mixup", 0.2, "with many images, mixing them helps")
    elif size >= 64:
        yield Choice("data.trivial_augment", True, "with few images, varied colours and positions help")


def _balance(survey: Survey) -> Iterator[Choice]:
    counts = survey.counts("train")
    ratio = max(counts) / max(min(counts), 1)
    if ratio > _IMBALANCED:
        reason = f"the largest class has {ratio:.1f} times the images of the smallest: show all classes equally often"
        yield Choice("data.balance", "sampler", reason)


def _model(size: int, start: Start, gpu: bool) -> list[Choice]:
    if start.reference is None:
        stem = ("cifar" if gpu else "cifar-maxpool") if size <= 40 else "cifar-maxpool" if size <= 96 else "imagenet"
        return [
            Choice("model.stem", stem, f"for pictures of {size} pixels"),
            Choice("model.init_from", None, "random weights; with few pictures, `imagenet` is far better"),
        ]
    return [
        Choice("model.stem", start.stem or "imagenet", "the stem of the initial weights"),
        Choice("model.init_from", start.reference, "pretrained weights help more than a few extra pictures"),
        Choice("model.freeze", "backbone", "train the classifier first: its random weights would spoil the others;"),
        Choice("model.unfreeze_after", 3, "then all stages"),
        Choice("model.cache_features", True, "fast first epochs: the backbone processes each picture once"),
    ]


def _training(num_train: int, batch_size: int, start: Start, gpu: bool) -> list[Choice]:
    steps_per_epoch = max(num_train // batch_size, 1)
    if start.reference is None:
        epochs = _clamped((3000 if gpu else 1500) / steps_per_epoch, 10, 200)
        return [
            Choice("train.epochs", epochs, f"of {steps_per_epoch} steps"),
            Choice("train.label_smoothing", 0.1, "prevents overconfident predictions"),
            Choice(
                "optim.lr",
                round(0.05 * batch_size / 64, 4),
                "proportional to the batch size; r18-tui find-lr measures it",
            ),
            Choice("optim.weight_decay", 5e-4, "keeps weights small"),
            Choice("schedule.warmup", 0.2, "share of the run in which the rate rises; it then falls linearly to 0"),
        ]
    epochs = _clamped((1000 if gpu else 400) / steps_per_epoch, 8, 40)
    return [
        Choice("train.epochs", epochs, f"of {steps_per_epoch} steps; more epochs gain a little accuracy"),
        Choice("train.label_smoothing", 0.1, "prevents overconfident predictions"),
        Choice("train.ema_decay", 0.98, "evaluation and export use an average of the weights"),
        Choice("optim.lr", 0.05, "of the classifier; r18-tui find-lr measures it"),
        Choice("optim.layer_decay", 0.5, "each earlier stage has this share of the next stage's rate"),
        Choice("optim.weight_decay", 1e-4, "low: the weights are already good"),
        Choice("optim.decay_bn_bias", False, "decay of batch norm and biases gains nothing"),
        Choice("schedule.warmup", 0.3, "a slow start protects the trained weights; then linearly to 0"),
        Choice("schedule.warmup_start", 0.1),
    ]


def _selection(survey: Survey, division: list[Choice]) -> Iterator[Choice]:
    share = next((float(choice.value) for choice in division if choice.key == "data.val_fraction"), 0.0)
    counts = survey.counts("train" if share else "val" if "val" in survey.layout.folders else "test")
    number = round(sum(counts) * (share or 1.0))
    if number < _MIN_IMAGES_FOR_ACCURACY:
        yield Choice("eval.best_by", "loss", f"with about {number:,} images, accuracy moves in large steps")


def _clamped(value: float, low: int, high: int) -> int:
    return min(max(round(value), low), high)
