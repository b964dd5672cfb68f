"""Layouts of image folders: classes and splits, skipped files and folders, and the notes about them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import FolderMaker
from trainer.data.folder.layout import count_images, find_layout
from trainer.errors import DataError


def flat(make_folder: FolderMaker) -> Path:
    """A folder `root/<class>/*` without splits."""
    return make_folder(splits=("train",)) / "train"


def test_class_folders_without_splits_are_for_training(make_folder: FolderMaker) -> None:
    root = flat(make_folder)
    (root / "runs" / "old").mkdir(parents=True)
    (root / "notes.txt").write_text("beside the classes")
    layout = find_layout(root)
    assert layout.flat
    assert layout.classes == ("blue", "green", "red"), "a folder without images is not a class"
    assert [len(files) for files in layout.files.values()] == [36]


@pytest.mark.parametrize(("name", "split"), [("valid", "val"), ("validation", "val"), ("testing", "test")])
def test_other_names_of_a_split_are_recognised(make_folder: FolderMaker, name: str, split: str) -> None:
    root = make_folder(splits=("train", name))
    assert set(find_layout(root).files) == {"train", split}


def test_two_folders_for_one_split_are_refused(make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match="val/ and valid/ both name the val split"):
        find_layout(make_folder(splits=("train", "val", "valid")))


def test_a_file_instead_of_a_folder_is_explained(make_folder: FolderMaker) -> None:
    with pytest.raises(DataError, match="is a file; expected the folder that holds the images"):
        find_layout(make_folder() / "train" / "red" / "000.png")


def test_a_nested_image_folder_is_suggested(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root.parent / "outer").mkdir()
    root.rename(root.parent / "outer" / "photos")
    with pytest.raises(DataError, match=r"Did you mean .*outer/photos\?"):
        find_layout(root.parent / "outer")


def test_images_without_a_class_folder_are_explained(make_folder: FolderMaker) -> None:
    root = make_folder()
    with pytest.raises(DataError, match="It holds images directly: put those of each class into a folder"):
        find_layout(root / "train" / "red")


def test_a_class_without_training_images_is_named(make_folder: FolderMaker) -> None:
    root = make_folder()
    shutil.rmtree(root / "train" / "red")
    (root / "train" / "red").mkdir()
    with pytest.raises(DataError, match="train/red: holds no images, so this class cannot be learned"):
        find_layout(root)


def test_nested_images_count_and_hidden_ones_do_not(make_folder: FolderMaker) -> None:
    """macOS leaves `._name.jpg` beside every file that it copies to a share; these are not images."""
    root = make_folder()
    deeper = root / "train" / "red" / "more" / "still"
    deeper.mkdir(parents=True)
    shutil.copy(root / "train" / "red" / "000.png", deeper / "deep.PNG")
    (root / "train" / "red" / "._000.png").write_bytes(b"\0\5\26\7")
    layout = find_layout(root)
    assert len(layout.files["train"]) == 37
    assert count_images(root) == 73
    assert [file.label for file in layout.files["train"]] == sorted(file.label for file in layout.files["train"])


def test_names_of_splits_are_case_insensitive(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("Train", "TEST"))
    assert set(find_layout(root).files) == {"train", "test"}


def test_a_class_of_unsupported_formats_is_reported(make_folder: FolderMaker) -> None:
    """Phones write .heic; a class of these must not disappear silently."""
    root = flat(make_folder)
    (root / "phone").mkdir()
    for number in range(3):
        (root / "phone" / f"{number}.heic").write_bytes(b"ftypheic")
    with pytest.raises(DataError, match=r"phone: holds 3 pictures in unsupported formats \(.heic\); convert them"):
        find_layout(root)


def test_other_files_are_counted_and_broken_links_skipped(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "train" / "red" / "notes.txt").write_text("no picture")
    (root / "train" / "red" / "gone.png").symlink_to("nowhere.png")
    (root / "train" / "red" / "loop.png").symlink_to("loop.png")
    layout = find_layout(root)
    assert len(layout.files["train"]) == 36
    assert layout.notes == [
        "skipped broken links: 2 (train/red/gone.png, train/red/loop.png)",
        "skipped files with other endings: 1 .txt (train/red/notes.txt)",
    ]


def test_the_drawn_tree_says_nothing_for_an_empty_folder_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(nothing\)"):
        find_layout(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(DataError, match="notes/") as refused:
        find_layout(tmp_path)
    assert "(nothing)" not in str(refused.value)
