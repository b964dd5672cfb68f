"""Names of splits and classes, outputs of programs, links and skipped files in a folder of images."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.folder.decoder import Decoder
from trainer.data.folder.layout import count_images, find_layout, image_paths
from trainer.data.image_folder import PixelStorage, load_image_folder
from trainer.errors import DataError
from trainer.evaluation.image_sources import folder_images
from trainer.evaluation.picture_sheet import Sheet, write_sheet


def fill(root: Path, *files: str) -> Path:
    """Write small images to these paths."""
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, 40, 90)).save(path, "JPEG" if "." not in name[1:] else None)
    return root


def counts(root: Path) -> dict[str, dict[str, int]]:
    """Number of images of each class in each split."""
    layout = find_layout(root)
    return {
        split: {name: sum(file.label == label for file in files) for label, name in enumerate(layout.classes)}
        for split, files in layout.files.items()
    }


def evaluated_counts(root: Path, classes: tuple[str, ...], split: str | None = None) -> dict[str, int]:
    """Number of images of each class that `eval --data` finds."""
    images = folder_images(root, classes, split)
    return {name: int((images.labels_N == label).sum()) for label, name in enumerate(classes)}


@pytest.mark.parametrize(
    "classes",
    [
        ("invalid", "valid"), ("control", "test"), ("bus", "train"), ("Testing", "control"), ("VAL", "other", "train"),
        ("other", "test", "train", "valid"), ("good", "validation"),
    ],
)  # fmt: skip
def test_classes_named_like_splits_are_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    root = fill(tmp_path, *(f"{name}/{number}.png" for name in classes for number in range(2)))
    assert counts(root) == {"train": dict.fromkeys(classes, 2)}
    assert evaluated_counts(root, classes) == dict.fromkeys(classes, 2)
    divided = fill(tmp_path / "divided", *(f"{split}/{name}/1.png" for split in ("Train", "VALID") for name in classes))
    assert counts(divided) == {split: dict.fromkeys(classes, 1) for split in ("train", "val")}
    assert evaluated_counts(divided, classes, "val") == evaluated_counts(divided, classes) == dict.fromkeys(classes, 1)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Valid", "VALIDATION"])
def test_every_command_recognises_the_same_names_of_splits(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", f"{name}/a/1.png", f"{name}/b/1.png", f"{name}/b/2.png")
    assert (
        counts(root)["val"]
        == evaluated_counts(root, ("a", "b"), "val")
        == evaluated_counts(root, ("a", "b"))
        == {"a": 1, "b": 2}
    )
    assert evaluated_counts(root, ("a", "b"), "train") == {"a": 1, "b": 1}
    with pytest.raises(DataError, match="has no test/"):
        folder_images(root, ("a", "b"), "test")
    shutil.rmtree(root / name)
    with pytest.raises(DataError, match="no test/ or val/; to evaluate on the images of train/, give --split train"):
        folder_images(root, ("a", "b"), None)
    assert evaluated_counts(fill(root, "b/1.png"), ("b", "train")) == {"b": 1, "train": 2}


def test_folders_and_images_beside_splits_are_reported(tmp_path: Path) -> None:
    files = ("train/a/1.png", "train/b/1.png", "train/loose.png", "test/1.png", "val/a/1.png", "more/1.png", "x.png")
    root = fill(tmp_path, *files)
    (root / "docs").mkdir()
    assert counts(root) == {"train": {"a": 1, "b": 1}, "val": {"a": 1, "b": 0}}
    assert find_layout(root).notes == [
        "skipped folders next to the splits: 2 (more, test)",
        "skipped images outside class folders: 2 (train/loose.png, x.png)",
    ]


def test_stray_images_and_nested_folders_do_not_change_the_layout(tmp_path: Path) -> None:
    strays = [f"{split}/{name}" for split in ("train", "test") for name in ("a/1.png", "b/1.png", "montage.png")]
    assert counts(fill(tmp_path / "stray", *strays)) == {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}
    fill(tmp_path / "stray", "val/a/1.png", "beside/1.png")
    assert set(counts(tmp_path / "stray")) == {"train", "val", "test"}
    classes = fill(tmp_path / "classes", "valid/1.png", "valid/more/2.png", "invalid/1.png", "invalid/more/2.png")
    assert counts(classes) == {"train": {"invalid": 2, "valid": 2}}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("cat/train/1 cat/test/1 dog/train/1", "test/, train/ inside class folders count as parts of their classes"),
        ("cat/more/Validation/1 dog/1", "Validation/ inside class folders count as parts of their classes (cat/, dog/)"),
        ("train/cat/test/1 train/dog/1 val/cat/1", "test/ inside class folders"),
        ("fold1/cat/1 fold1/dog/1 fold2/cat/1", "fold1/, fold2/ count as the classes, and cat/, dog/ inside them"),
        ("train/2023/cat/1 train/2023/dog/1 train/2024/cat/1 test/2023/cat/1", "2023/, 2024/ count as the classes"),
        ("bus/1 car/1 train/steam/1 train/diesel/1", "so bus/, car/ next to it are not used"),
        ("bus/1 Training/steam/1 Training/diesel/1", "Training/ counts as the training split"),
        ("cat/1 dog/1", None),
        ("cat/1 cat/old/1 dog/old/1", None),
        ("cat/images/1 dog/images/1", None),
        ("cat/tabby/1 cat/siamese/1 dog/poodle/1", None),
        ("train/cat/1 train/dog/1 test/cat/1 test/dog/1", None),
    ],
)  # fmt: skip
def test_an_ambiguous_layout_is_reported(tmp_path: Path, files: str, words: str | None) -> None:
    notes = find_layout(fill(tmp_path, *(f"{name}.png" for name in files.split()))).notes
    assert words in notes[0] if words else notes == []


def test_splits_without_class_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 0 class folders; .* It holds images directly"):
        find_layout(fill(tmp_path / "both", "train/1.png", "test/1.png"))
    with pytest.raises(DataError, match=r"found 0 class folders; .* It holds images directly"):
        find_layout(fill(tmp_path / "half", "train/1.png", "test/a/1.png", "test/b/1.png"))
    with pytest.raises(
        DataError, match=r"train/ is missing \(or, if test/ is a class, put its images directly into it\)"
    ):
        find_layout(fill(tmp_path / "deep", "test/day/1.png", "control/day/1.png"))


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    """macOS writes "ü" as a letter and a combining mark, others as one letter."""
    whole, parts = "Tür", "Tu\u0308r"
    root = fill(tmp_path, f"train/{parts}/1.png", "train/Zug/1.png", f"test/{whole}/1.png", "test/Zug/1.png")
    assert counts(root) == {"train": {whole: 1, "Zug": 1}, "test": {whole: 1, "Zug": 1}}
    assert evaluated_counts(root, (whole, "Zug")) == {whole: 1, "Zug": 1}
    assert evaluated_counts(root, (parts, "Zug")) == {parts: 1, "Zug": 1}
    assert find_layout(root).notes == []
    fill(root, f"train/{whole}/2.png", "train/zug/1.png", "train/Ｚug /1.png")
    layout = find_layout(root)
    assert layout.classes == (whole, "Zug", "zug", "Ｚug ")
    assert "two folders are named Tür, in different Unicode forms: they count as one class" in layout.notes
    assert any("the classes 'Zug' and 'zug' and 'Ｚug ' look alike" in note for note in layout.notes)


def test_order_and_identity_do_not_depend_on_the_unicode_form(tmp_path: Path) -> None:
    results = []
    for form in ("NFC", "NFD"):
        names = [
            unicodedata.normalize(form, f"{split}/Tür/{name}.png") for split in ("train", "test") for name in ("ä", "z")
        ]
        root = fill(tmp_path / form, *names, "train/b/1.png", "test/b/1.png")
        data = load_image_folder(
            root,
            decoder=Decoder(image_size=8, crop_pct=1.0),
            keep=lambda _: PixelStorage.STREAM,
            progress=lambda *_: None,
        )
        paths = [unicodedata.normalize("NFC", Path(path).name) for path in data.splits["train"].paths or []]
        results.append((data.fingerprint, paths))
    assert results[0] == results[1]


def test_a_file_name_may_be_other_than_utf_8(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    os.rename(root / "train/a/1.png", os.fsencode(root) + b"/train/a/caf\xe9.png")
    decoder = Decoder(image_size=8, crop_pct=1.0)
    data = load_image_folder(root, decoder=decoder, keep=lambda _: PixelStorage.STREAM, progress=lambda *_: None)
    assert len(data.splits["train"]) == 2


OUTPUTS = {
    "run": ("runs/run/eval/mistakes-test.png", ["runs/run/events.jsonl", "runs/run/config.yaml"]),
    "other name": ("mine/first/eval/training.jpg", ["mine/first/events.jsonl"]),
    "run in the folder": ("first/eval/1.png", ["first/config.yaml", "first/trainer.json"]),
    "deeper": ("a/runs/run/1.png", ["a/runs/run/events.jsonl"]),
    "wandb": ("wandb/run-1/files/media/images/1.png", ["wandb/debug.log"]),
    "mlflow": ("mlruns/0/123/artifacts/1.png", ["mlruns/0/meta.yaml"]),
    "mlflow elsewhere": ("track/0/123/artifacts/1.png", ["track/0/123/meta.yaml"]),
    "tensorboard": ("tb/plugins/1.png", ["tb/events.out.tfevents.17.host"]),
    "trackio": ("trackio/media/1.png", ["trackio/x.db"]),
    "lightning": ("lightning_logs/version_0/1.png", []),
    "evaluation": ("judged/sheets/1.png", ["judged/report.json", "judged/confusion.csv"]),
    "export": ("out/samples/1.png", ["out/model.onnx", "out/model.json"]),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs_of_runs_and_trackers_are_never_input(tmp_path: Path, what: str) -> None:
    """In all commands and at any depth."""
    pictures = ("a/1.png", "a/2.png", "b/1.png")
    output, others = OUTPUTS[what]
    root = fill(tmp_path, *pictures, output)
    for other in others:
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).write_text("")
    assert counts(root) == {"train": {"a": 2, "b": 1}}
    assert count_images(root) == 3
    assert evaluated_counts(root, ("a", "b")) == {"a": 2, "b": 1}
    assert [str(path.relative_to(root)) for path in image_paths(root)] == list(pictures)
    (root / "docs").mkdir()
    output_note, folders_note = sorted(find_layout(root).notes, key=lambda note: "folders" in note)
    assert output_note.startswith("skipped output of runs, exports and trackers: 1 (")
    assert folders_note.startswith("skipped folders without images: ")
    assert "docs" in folders_note
    assert "runs" not in folders_note


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("what", ["run", "other name", "wandb", "tensorboard", "evaluation", "export"])
@pytest.mark.parametrize("below", ["", "zoo/e/", "zoo/e/f/"])
def test_a_folder_of_outputs_is_not_a_class(tmp_path: Path, split: str, what: str, below: str) -> None:
    root = fill(tmp_path, *(f"{folder}/{name}/1.png" for folder in ("train", "test") for name in ("a", "b")))
    output, others = OUTPUTS[what]
    fill(root / split / below, output)
    for other in others:
        (root / split / below / other).parent.mkdir(parents=True, exist_ok=True)
        (root / split / below / other).write_text("")
    classes = {"a": 1, "b": 1}
    assert counts(root) == {"train": classes, "test": classes}
    assert evaluated_counts(root, ("a", "b"), split) == classes
    if below:
        (root / split / "zoo" / "x.heic").write_text("")
        with pytest.raises(DataError, match="zoo: holds 1 pictures in unsupported formats"):
            find_layout(root)


def test_a_folder_named_like_a_split_with_outputs_is_not_a_split(tmp_path: Path) -> None:
    root = fill(tmp_path, "cat/1.png", "dog/1.png", "test/runs/r/eval/1.png")
    (root / "test/runs/r/events.jsonl").write_text("")
    assert counts(root) == {"train": {"cat": 1, "dog": 1}}


def test_picture_sheets_are_skipped_and_classes_may_be_named_like_trackers(tmp_path: Path) -> None:
    root = fill(tmp_path, "wandb/1.png", "runs/1.png", "tensorboard/training.png", "runs/deeper/mistakes-of-mine.png")
    sheet = Sheet(pixels_NHWC=np.zeros((1, 8, 8, 3), np.uint8), captions=[{}])
    write_sheet(root / "runs" / "mistakes-test.png", sheet)
    assert counts(root) == {"train": {"runs": 2, "tensorboard": 1, "wandb": 1}}
    assert len(image_paths(root)) == 4


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "@Recycle", "#snapshot",
        ".ipynb_checkpoints", ".git", ".Trash-1000", ".@__thumb", ".thumbnails",
    ],
)  # fmt: skip
def test_system_folders_are_skipped_and_reported(tmp_path: Path, name: str) -> None:
    places = [f"{name}/1.png", f"a/{name}/1.png/thumb.jpg", f"a/deep/{name}/2.png"]
    root = fill(tmp_path, "a/1.png", "b/1.png", *places)
    assert counts(root) == {"train": {"a": 1, "b": 1}}
    assert evaluated_counts(root, ("a", "b")) == {"a": 1, "b": 1}
    assert len(image_paths(root)) == 2
    kind = "skipped hidden folders" if name.startswith(".") else "skipped system and NAS folders"
    assert find_layout(root).notes == [f"{kind}: 3 ({name}, a/{name}, a/deep/{name})"] or name > "a"


def test_skipped_files_are_counted_with_examples(tmp_path: Path) -> None:
    root = fill(tmp_path, "a/1.jfif", "a/2.JPE", "a/3.jpeg", "a/4.dib", "b/1.png", "b/._1.png")
    for name in ("a/x.txt", "a/y.txt", "a/z.txt", "b/clip.MOV", "b/none", "a/.DS_Store", "b/Thumbs.db"):
        (root / name).write_text("")
    assert counts(root) == {"train": {"a": 4, "b": 1}}
    assert find_layout(root).notes == [
        "skipped files with other endings: 3 .txt, 1 .mov, 1 no ending (a/x.txt, a/y.txt, a/z.txt, ...)",
        "skipped hidden images: 1 (b/._1.png)",
    ]


def test_links_to_folders_are_followed_once_without_cycles(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", "more/1.png", "more/deep/2.png", "whole/1.png")
    root = fill(tmp_path / "photos", "a/1.png", "b/1.png")
    for name, target in {
        "a/external": "../../store/more", "a/again": "../../store/more", "a/inside": "../../store/more/deep", "a/up": "..",
        "a/home": "../..", "a/self": ".", "a/gone": "nowhere", "c": "../store/whole", "d": "..", "a/loop": "loop",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    (store / "more" / "back").symlink_to(root)
    assert counts(root) == {"train": {"a": 3, "b": 1, "c": 1}}
    assert len(image_paths(root / "a")) == 3
    notes = find_layout(root).notes
    assert "skipped links back to a parent folder: 5 (a/again/back, a/home, a/self, ...)" in notes
    assert "followed links to folders: 1 (a/again)" in notes
    assert "skipped folders already read under another name: 2 (a/external, a/inside)" in notes
    assert "skipped broken links: 2 (a/gone, a/loop)" in notes


def test_a_folder_is_read_under_its_own_name_rather_than_a_link(tmp_path: Path) -> None:
    root = fill(tmp_path, "a/z/1.png", "b/1.png")
    (root / "a" / "alias").symlink_to("z")
    assert image_paths(root / "a") == [root / "a" / "z" / "1.png"]


def test_other_files_do_not_exclude_the_images_of_a_class(tmp_path: Path) -> None:
    """Scrapers leave logs in class folders, and folders of splits may contain notes."""
    names = ("a", "recycled")
    root = fill(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "test") for name in names))
    for folder in ("train", "train/a", "test/recycled"):
        for name in ("config.yaml", "log.txt", "report.json", "meta.yaml", "README.md"):
            (root / folder / name).write_text("")
    (root / "train/a/checkpoints").mkdir()
    assert counts(root) == {split: dict.fromkeys(names, 1) for split in ("train", "test")}


def test_reading_version_1_finds_the_same_files(tmp_path: Path) -> None:
    """An older run is resumed with its files and classes."""
    root = fill(
        tmp_path, "Tu\u0308r/1.png", "Tu\u0308r/@eaDir/2.png", "Tz/1.png", "Tz/2.jfif", "runs/r/events.jsonl.png"
    )
    (root / "runs/r/events.jsonl").write_text("")
    (root / "Tz" / "link").symlink_to(root / "runs")
    layout = find_layout(root, 1)
    assert layout.classes == ("Tu\u0308r", "Tz", "runs")
    assert [len(layout.files["train"]), count_images(root, 1)] == [4, 4]
    with pytest.raises(DataError, match="train/ is missing"):
        find_layout(fill(tmp_path / "older", "test/1.png", "control/1.png"), 1)
