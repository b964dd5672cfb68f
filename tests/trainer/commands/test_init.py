"""`init`: the configuration for a folder of images."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.conftest import FolderMaker
from tests.support.progress import quiet
from tests.support.running import train, view_of
from tests.support.scenes import scene
from trainer.commands.init import add_arguments, configuration, main, summary
from trainer.config.loader import load_config
from trainer.config.schema import Config
from trainer.data.folder.held_out import hold_out
from trainer.data.folder.suggested_config import Start
from trainer.data.folder.survey import survey_folder
from trainer.errors import CheckpointError, ConfigError, DataError
from trainer.model.start_weights import find_start

RANDOM = Start(reference=None)
IMAGENET = Start(reference="imagenet", stem="imagenet")


def init(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(arguments)))


def written(root: Path, tmp_path: Path, start: Start = RANDOM, *, gpu: bool = False) -> tuple[Config, str]:
    """The configuration for a folder, and its text."""
    text = configuration(survey_folder(root, quiet), root=str(root), start=start, gpu=gpu)
    (tmp_path / "written.yaml").write_text(text)
    return load_config(str(tmp_path / "written.yaml")).config, text


def test_a_folder_becomes_a_run_in_two_commands(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a broken file, an odd class name, a class that is missing in test, and an image of four channels."""
    root = make_folder("my photos", classes=("a b", "[red] & été", "third"), per_class=24)
    (root / "train" / "third" / "000.png").write_bytes(b"\x89PNG broken")
    shutil.rmtree(root / "test" / "third")
    Image.fromarray(np.full((12, 10, 4), 90, np.uint8)).save(root / "train" / "a b" / "alpha.png")
    monkeypatch.chdir(tmp_path)
    assert init("my photos", "--init-from", "none") == 0
    printed = capsys.readouterr().out
    assert "wrote my-photos.yaml" in printed
    assert "train/third/000.png" in printed
    assert "1 RGBA; what is transparent is shown over white" in printed
    assert "test/ has no images of third" in printed
    small = ("train.epochs=1", "data.image_size=8", "run.precision=fp32", "run.channels_last=true", "run.device=cpu")
    config = load_config("my-photos.yaml", small).config
    run = train(config, tmp_path / "runs")
    view = view_of(run.run.run_dir)
    assert run.exit_code == 0
    assert view.started is not None
    assert view.started.classes == ["[red] & été", "a b", "third"]
    (tested,) = [event for event in view.evaluations if event.split == "test"]
    assert tested.counts == [24, 24, 0], "a class that is missing in test keeps its number"


def test_init_overwrites_no_file(make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"images\.yaml: already exists"):
        init("images")
    assert (tmp_path / "images.yaml").read_text() == "mine"
    assert init("images", "-o", "other.yaml") == 0
    with pytest.raises(ConfigError, match=r"nowhere/x.yaml: cannot be written: .* -o FILE"):
        init("images", "-o", "nowhere/x.yaml")


def test_a_wrong_layout_is_answered_with_both_trees(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "train").rename(root / "pictures")
    with pytest.raises(DataError, match=r"(?s)found:.*pictures/.*expected:.*train/<class>"):
        init(str(root))


def test_a_class_without_readable_images_is_named(make_folder: FolderMaker) -> None:
    root = make_folder()
    for path in (root / "train" / "red").iterdir():
        path.write_text("no image")
    with pytest.raises(
        DataError, match=r"train/red: 0 images that can be read; .* at least two .*000.png: not a readable image"
    ):
        init(str(root))


def test_images_are_held_out_where_there_are_enough(make_folder: FolderMaker, tmp_path: Path) -> None:
    def shares(name: str, per_class: int, *splits: str) -> tuple[float, float]:
        root = make_folder(name, per_class=per_class, splits=splits or ("train",))
        data = written(root if splits else root / "train", tmp_path)[0].data
        return data.val_fraction, data.test_fraction

    assert shares("flat", 30) == (0.15, 0.15)
    assert shares("small", 8) == (0.25, 0.0)
    assert shares("tested", 30, "train", "test") == (0.15, 0.0)
    assert shares("few", 8, "train", "test") == (0.0, 0.0)
    assert shares("whole", 30, "train", "val", "test") == (0.0, 0.0)


@pytest.mark.parametrize(
    ("pixels", "start", "gpu", "size", "stem"),
    [
        ((32, 40), RANDOM, False, 32, "cifar-maxpool"), ((32, 40), RANDOM, True, 32, "cifar"),
        ((64, 64), RANDOM, False, 64, "cifar-maxpool"), ((300, 400), RANDOM, True, 224, "imagenet"),
        ((32, 40), IMAGENET, True, 128, "imagenet"), ((300, 400), IMAGENET, True, 224, "imagenet"),
        ((300, 400), IMAGENET, False, 128, "imagenet"),
        ((300, 400), Start(reference="x", stem="cifar", image_size=48), True, 48, "cifar"),
    ],
)  # fmt: skip
def test_size_and_stem_depend_on_images_weights_and_machine(
    make_folder: FolderMaker, tmp_path: Path, pixels: tuple[int, int], start: Start, gpu: bool, size: int, stem: str
) -> None:
    config, text = written(make_folder(size=pixels, per_class=3), tmp_path, start, gpu=gpu)
    assert (config.data.image_size, config.model.stem) == (size, stem)
    assert config.model.init_from == start.reference
    assert config.model.cache_features == (start.reference is not None)
    assert f"  image_size: {size}\n" in text


def test_elongated_images_are_letterboxed_and_rare_classes_balanced(make_folder: FolderMaker, tmp_path: Path) -> None:
    root = make_folder(size=(30, 60))
    for path in sorted((root / "train" / "red").iterdir())[2:]:
        path.unlink()
    config, text = written(root, tmp_path)
    assert config.data.fit == "letterbox"
    assert config.data.balance == "sampler"
    assert "# half of the pictures are 2.0 times as long as wide or more: letterbox keeps all of each\n" in text
    assert "# the largest class has 6.0 times the images of the smallest: show all classes equally often\n" in text


@pytest.mark.parametrize(
    "name",
    [
        "plain", "a b", "a: b # c", "été", "yes", "-x", 'quo"te', "back\\slash", "%1", "1e3", "null", "08",
        "\U0001f3f4\U000e0067", "\U000f0001", "a\nb", "\u2028",
    ],
)  # fmt: skip
def test_any_folder_name_is_read_back_from_the_configuration(
    make_folder: FolderMaker, tmp_path: Path, name: str
) -> None:
    root = make_folder(name, per_class=2)
    text = configuration(survey_folder(root, quiet), root=name, start=RANDOM, gpu=False)
    (tmp_path / "written.yaml").write_text(text)
    assert load_config(str(tmp_path / "written.yaml")).config.data.root == name


def test_a_start_from_a_run_or_checkpoint_has_its_size_and_stem(folder_config: Config, tmp_path: Path) -> None:
    run = train(folder_config, tmp_path / "runs").run.run_dir
    known = Start(reference=str(run.path), stem="cifar-maxpool", image_size=8)
    assert find_start(str(run.path), tmp_path) == known
    assert find_start(run.name, tmp_path / "runs") == known
    checkpoint = run.checkpoints / "step-00000008.safetensors"
    assert find_start(str(checkpoint), tmp_path) == Start(reference=str(checkpoint), stem="cifar-maxpool", image_size=8)
    (tmp_path / "plain.pth").write_bytes(b"tensors")
    assert find_start(str(tmp_path / "plain.pth"), tmp_path) == Start(reference=str(tmp_path / "plain.pth"))
    assert find_start("none", tmp_path).reference is None
    assert find_start(None, tmp_path).stem == "imagenet"
    with pytest.raises(CheckpointError, match="nothing: no run of this name"):
        find_start("nothing", tmp_path)


def test_many_classes_are_not_all_listed(make_folder: FolderMaker) -> None:
    root = make_folder(classes=tuple(f"class-{n:02d}" for n in range(25)), per_class=2)
    assert "  ... and 5 more classes" in summary(survey_folder(root, quiet))


def test_a_start_from_an_exported_file_has_its_size_and_stem(tmp_path: Path) -> None:
    header = {"stem": "cifar", "preprocess": '{"size": 48}'}
    save_file({"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}, tmp_path / "export.safetensors", metadata=header)
    start = find_start(str(tmp_path / "export.safetensors"), tmp_path)
    assert (start.stem, start.image_size) == ("cifar", 48)
    save_file({"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}, tmp_path / "plain.safetensors")
    assert find_start(str(tmp_path / "plain.safetensors"), tmp_path).stem == "cifar-maxpool"


def test_two_images_per_class_are_enough(make_folder: FolderMaker, tmp_path: Path) -> None:
    root = make_folder(splits=("train",), per_class=2) / "train"
    assert written(root, tmp_path)[0].data.val_fraction == 0.4
    rows = hold_out(["a", "b", "c", "d"], [0, 0, 1, 1], {"val": 0.4})
    assert len(rows["val"]) == 2


def test_a_folder_name_that_is_not_utf_8_is_refused(make_folder: FolderMaker) -> None:
    survey = survey_folder(make_folder(per_class=2), quiet)
    with pytest.raises(DataError, match="is not named in UTF-8; rename the folder"):
        configuration(survey, root="caf\udce9", start=RANDOM, gpu=False)


def test_near_copies_are_counted_and_those_across_splits_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        folder = tmp_path / "photos" / ("test" if number > 7 else "train") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{number}.png")
    scene(2).resize((60, 45)).save(tmp_path / "photos/train/class0/again.png")
    scene(3).resize((60, 45)).save(tmp_path / "photos/test/class1/leak.png")
    shutil.copy(tmp_path / "photos/train/class0/0.png", tmp_path / "photos/train/class0/same.png")
    assert init("photos") == 0
    lines = capsys.readouterr().out.splitlines()
    (near,) = [line for line in lines if line.startswith("  near copies")]
    assert "2 sets of pictures that show the same: " in near
    assert "train/class0/2.png = train/class0/again.png" in near
    assert "same.png" not in near, "an equal file is counted as a copy already"
    (leak,) = [line for line in lines if "in different splits" in line]
    assert "1 set of pictures" in leak
    assert "train/class1/3.png = test/class1/leak.png" in leak
