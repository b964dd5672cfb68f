"""What lies where in a folder of images: splits, classes and files. Torch-free, and no file is opened.

Two layouts are known: `root/train/<class>/*` beside `root/val` and/or `root/test`, and `root/<class>/*`, of which some images
are then held out. The class list of the training images is the law for every split.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif"})

_FOREIGN = frozenset({".heic", ".heif", ".avif", ".jxl", ".raw", ".dng", ".cr2", ".nef", ".arw", ".psd", ".svg"})
"""Endings of pictures that Pillow does not read without more."""

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of folders that are taken for a split, in small or capital letters."""

_DRAWN = 8
"""Entries of a folder that a drawn tree shows."""


@dataclass(frozen=True)
class ImageFile:
    """A file with an image's ending.

    Attributes:
        label: Number of its class.
        size: In bytes.
        mtime_ns: When it was last written, in nanoseconds.
    """

    path: Path
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder of images.

    Attributes:
        root: The folder.
        classes: Names, sorted.
        folders: Of each split that there is; `train` is `root` itself where images lie in `root/<class>`.
        files: Of each split, sorted by class and path.
    """

    root: Path
    classes: tuple[str, ...]
    folders: dict[str, Path]
    files: dict[str, list[ImageFile]]

    @property
    def flat(self) -> bool:
        """Whether there are class folders only, and no split."""
        return self.folders["train"] == self.root


def find_layout(root: Path) -> Layout:
    """Look at a folder.

    Raises:
        DataError: When it is not laid out in a way that is known; the message draws both trees.
    """
    folders = _split_folders(root)
    classes = _class_names(root, folders["train"])
    return Layout(
        root=root,
        classes=classes,
        folders=folders,
        files={split: _files(split, folder, classes) for split, folder in folders.items()},
    )


def count_images(root: Path) -> int:
    """Files with an image's ending in all splits of a folder, to see whether they fit in memory."""
    return sum(1 for folder in _split_folders(root).values() for _ in _image_entries(folder))


def class_folders(folder: Path) -> list[Path]:
    """Folders that stand for classes, sorted.

    Raises:
        DataError: When it cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if _is_class(entry))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def image_paths(folder: Path) -> list[Path]:
    """All files below a folder that have an image's ending, sorted.

    Raises:
        DataError: When it cannot be read.
    """
    return sorted(Path(entry.path) for entry in _image_entries(folder))


def expected_trees(root: Path) -> str:
    """Both layouts that are known, drawn."""
    name = root.name or "photos"
    return (
        f"expected:\n  {name}/\n    train/<class>/*.jpg\n    test/<class>/*.jpg   (and/or val/<class>/*.jpg)"
        f"\nor, with data.val_fraction and data.test_fraction, which hold some images of each class out:"
        f"\n  {name}/\n    <class>/*.jpg"
    )


def found_tree(root: Path) -> str:
    """What there is, drawn two folders deep."""
    lines = [f"found:\n  {root.name or root}/"]
    for entry in _shown(root):
        lines.append(f"    {entry}" if isinstance(entry, str) else f"    {_described(entry)}")
        if isinstance(entry, Path) and entry.is_dir():
            lines += [
                f"      {inner if isinstance(inner, str) else _described(inner)}"
                for inner in _shown(entry, folders=True)
            ]
    return "\n".join(lines)


def _shown(folder: Path, *, folders: bool = False) -> list[Path | str]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not folders or entry.is_dir())
    except OSError as error:
        return [f"(cannot be read: {error.strerror})"]
    if not entries and not folders:
        return ["(nothing)"]
    more = len(entries) - _DRAWN
    return [*entries[:_DRAWN], *([f"... and {more:,} more"] if more > 0 else [])]


def _described(path: Path) -> str:
    if not path.is_dir():
        return path.name
    try:
        images = sum(entry.suffix.lower() in EXTENSIONS for entry in path.iterdir())
    except OSError as error:
        return f"{path.name}/ (cannot be read: {error.strerror})"
    return f"{path.name}/" + (f" ({images:,} image{'' if images == 1 else 's'})" if images else "")


def _split_folders(root: Path) -> dict[str, Path]:
    if root.is_file():
        raise DataError(f"{root}: is a file; expected the folder that holds the images\n{expected_trees(root.parent)}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data.root must hold the images\n{expected_trees(root)}")
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        folders = [path for path in _folders(root) if path.name.lower() in names]
        if len(folders) > 1:
            raise DataError(
                f"{root}: {folders[0].name}/ and {folders[1].name}/ both mean the {split} images; keep one of them"
            )
        if folders:
            found[split] = folders[0]
    if "train" in found:
        return found
    if found:
        raise DataError(f"{root}: train/ is missing\n{found_tree(root)}\n{expected_trees(root)}")
    return {"train": root}


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from error


def _class_names(root: Path, train: Path) -> tuple[str, ...]:
    names = tuple(path.name for path in class_folders(train))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{train}: the class folder {name!r} is not named in UTF-8; rename it: its name goes into checkpoints and "
                f"exported models"
            ) from None
    if train == root:
        # Beside class folders there may be others: of runs, of notes.
        names = tuple(name for name in names if _holds_images(train / name))
    if len(names) < 2:
        raise DataError(
            f"{train}: found {len(names)} class folder{'' if len(names) == 1 else 's'}; a classifier needs at least two"
            f"{_way_out(root, train, names)}\n{found_tree(root)}\n{expected_trees(root)}"
        )
    return names


def _way_out(root: Path, train: Path, names: tuple[str, ...]) -> str:
    """What is probably meant where a folder has fewer than two classes."""
    if train == root:
        for inner in (train / name for name in names):
            if any((inner / name).is_dir() for name in SPLIT_NAMES["train"]):
                return f". Did you mean {inner}?"
    if any(entry.suffix.lower() in EXTENSIONS for entry in train.iterdir()):
        return ". Images lie in it directly: put those of each class into a folder that is named after the class"
    return ""


def _holds_images(folder: Path) -> bool:
    """Whether a folder is one of a class.

    Raises:
        DataError: When it looks like one whose pictures nobody can read here.
    """
    if any(_image_entries(folder)):
        return True
    pictures = {ending: number for ending, number in other_endings(folder).items() if ending in _FOREIGN}
    if pictures:
        raise DataError(
            f"{folder}: holds {sum(pictures.values()):,} pictures that cannot be read here ({', '.join(sorted(pictures))}); "
            f"convert them, for example to .jpg (known endings: {' '.join(sorted(EXTENSIONS))})"
        )
    return False


def other_endings(folder: Path) -> Counter[str]:
    """Files below a folder that are no images here, by ending; links that lead nowhere as `broken link`."""
    found: Counter[str] = Counter()
    for path, _, files in os.walk(folder):
        for name in files:
            ending = os.path.splitext(name)[1].lower()
            if not os.path.exists(os.path.join(path, name)):
                found["broken link"] += 1
            elif ending not in EXTENSIONS and not name.startswith("."):
                found[ending or "no ending"] += 1
    return found


def _files(split: str, folder: Path, classes: tuple[str, ...]) -> list[ImageFile]:
    strangers = sorted({path.name for path in class_folders(folder)} - set(classes))
    if strangers and split != "train":
        raise DataError(
            f"{folder}: class folder {strangers[0]!r} is not in train/; the classes of train/ hold for every split. "
            f"Rename it, remove it, or add it to train/"
        )
    files = []
    for label, name in enumerate(classes):
        try:
            found = sorted((Path(entry.path), entry.stat()) for entry in _image_entries(folder / name))
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error.strerror}") from error
        files += [ImageFile(path, label, stat.st_size, stat.st_mtime_ns) for path, stat in found]
        if not found and split == "train":
            raise DataError(
                f"{folder / name}: holds no images, so nothing can be learned about this class; add some or remove the folder "
                f"(known endings: {' '.join(sorted(EXTENSIONS))})"
            )
    if not files:
        raise DataError(f"{folder}: no images in its class folders; known endings: {' '.join(sorted(EXTENSIONS))}")
    return files


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _image_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All files below a folder that have an image's ending; hidden ones are none (macOS keeps `._name.jpg` beside each)."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return  # a class that this split does not have
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _image_entries(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and os.path.isfile(entry.path):
            yield entry
