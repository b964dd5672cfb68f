"""Layout of a folder of images: splits, classes and files. Torch-free, and no picture is opened.

Two layouts are supported: `root/train/<class>/*` beside `root/val` and/or `root/test`, and `root/<class>/*`, of which some images
are then held out. All splits use the class list of the training images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from trainer.config.reading_version import READING
from trainer.data.folder import walk
from trainer.data.folder.doubtful_layout import note_doubtful_classes, note_unused_classes
from trainer.data.folder.walk import EXTENSIONS, Notes
from trainer.errors import DataError

_UNSUPPORTED_ENDINGS = {".heic", ".heif", ".avif", ".jxl", ".raw", ".dng", ".cr2", ".nef", ".arw", ".psd", ".svg"}
"""Endings of pictures that Pillow does not read without additional packages."""

_SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Folder names that mean a split, in lower or upper case."""

_MAX_TREE_ENTRIES = 8  # most entries of a folder in a drawn tree


@dataclass(frozen=True)
class ImageFile:
    """A file with an image's ending, and the number of its class.

    Sizes are in bytes. The mtime is set by the program that wrote the file, the ctime by the system's clock.
    """

    path: Path
    label: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder of images."""

    root: Path
    classes: tuple[str, ...]  # names, sorted
    folders: dict[str, Path]  # folder of each split; `train` is `root` itself where images lie in `root/<class>`
    files: dict[str, list[ImageFile]]  # files of each split, sorted by class and path
    notes: list[str]  # skipped files and folders, and names that look alike, for people
    reading: int

    @property
    def flat(self) -> bool:
        """Whether the folder holds only class folders and no split."""
        return self.folders["train"] == self.root


def find_layout(root: Path, reading: int = READING) -> Layout:
    """Find the splits, classes and files of a folder; DataError, with both trees drawn, when it is not supported."""
    notes = Notes(root)
    folders = _training_folders(root, notes, reading)
    train = folders["train"]
    images = {
        split: class_images(folder, notes, flat=folder == root, reading=reading) for split, folder in folders.items()
    }
    classes = tuple(images["train"])
    places = {name: [path for path, _ in of_class] for name, of_class in images["train"].items()}
    note_doubtful_classes(train, places, frozenset(chain(*_SPLIT_NAMES.values())), notes)
    for path in walk.loose_images(root, reading) if train != root else ():
        notes.add("skipped images outside class folders", path)
    if len(classes) < 2:
        raise DataError(
            f"{train}: found {len(classes)} class folder{'' if len(classes) == 1 else 's'}; a classifier needs at least two"
            f"{_suggestion(root, train, classes)}\n{found_tree(root)}\n{expected_trees(root)}"
        )
    return Layout(
        root=root,
        classes=classes,
        folders=folders,
        files={split: _files(split, folder, classes, images[split]) for split, folder in folders.items()},
        notes=notes.lines(),
        reading=reading,
    )


def count_images(root: Path, reading: int = READING) -> int:
    """Count the files with an image's ending in all splits of a folder, to see whether they fit in memory."""
    folders = _training_folders(root, Notes(root), reading)
    return sum(1 for folder in folders.values() for _ in walk.image_entries(folder, Notes(root), reading))


def image_paths(folder: Path) -> list[Path]:
    """Image files below a folder, sorted, without this program's own output; DataError when it cannot be read."""
    return sorted(Path(entry.path) for entry in walk.image_entries(folder, Notes(folder)))


def split_folders(root: Path, notes: Notes, reading: int = READING) -> dict[str, Path]:
    """Folder of each split; empty where there are only class folders.

    A folder with the name of a split is one when it holds class folders. One that holds images itself is a class
    (`valid` beside `invalid`, `test` beside `control`), and is ignored beside splits: the class of its images is
    unknown. DataError when two folders mean the same split, or the folder cannot be read.
    """
    named: dict[str, list[Path]] = {}
    others = []
    for folder in walk.subfolders(root, notes, reading):
        name = folder.name.lower()
        split = next((split for split, names in _SPLIT_NAMES.items() if name in names), None)
        if split is None:
            others.append(folder)
        else:
            named.setdefault(split, []).append(folder)
    if reading > 1:
        named = _divided(named, others, notes)
    for split, folders in named.items():
        if len(folders) > 1:
            raise DataError(
                f"{root}: {folders[0].name}/ and {folders[1].name}/ both name the {split} split; keep only one"
            )
    return {split: named[split][0] for split in _SPLIT_NAMES if split in named}


def class_images(
    folder: Path, notes: Notes, *, flat: bool, reading: int = READING
) -> dict[str, list[tuple[Path, os.stat_result]]]:
    """Images of each class folder, classes and images sorted by name.

    With `flat`, folders without images are no classes: other folders may lie beside class folders. DataError when
    something cannot be read, or a folder holds pictures in formats that are not supported.
    """
    found: dict[str, list[tuple[Path, os.stat_result]]] = {}
    for place in walk.subfolders(folder, notes, reading):
        name = walk.normal_form(place.name, reading)
        try:
            name.encode()
            images = [(Path(entry.path), entry.stat()) for entry in walk.image_entries(place, notes, reading)]
        except UnicodeEncodeError:
            raise DataError(
                f"{folder}: the class folder {name!r} has a name that is not UTF-8; rename it: checkpoints and exported "
                f"models contain it"
            ) from None
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from error
        only_output = not images and walk.is_only_output(place)  # already noted
        if only_output or (flat and not images):
            _reject_unsupported_formats(place)
            if not only_output:
                notes.add("skipped folders without images", place)
            continue
        if name in found:
            notes.say(f"two folders are named {name}, in different Unicode forms: they count as one class")
        # A sort key that is equal on systems that write the same name differently.
        found[name] = sorted(
            [*found.get(name, []), *images],
            key=lambda image: tuple(walk.normal_form(part, reading) for part in image[0].parts),
        )
    for path in walk.loose_images(folder, reading):
        notes.add("skipped images outside class folders", path)
    return dict(sorted(found.items()))


def expected_trees(root: Path) -> str:
    """Drawing of both supported layouts."""
    name = root.name or "photos"
    return (
        f"expected:\n  {name}/\n    train/<class>/*.jpg\n    test/<class>/*.jpg   (and/or val/<class>/*.jpg)"
        f"\nor, with data.val_fraction and data.test_fraction, which hold out some images of each class:"
        f"\n  {name}/\n    <class>/*.jpg"
    )


def found_tree(root: Path) -> str:
    """Drawing of the existing folder, two levels deep."""
    return "\n".join([f"found:\n  {root.name or root}/", *_tree(root, "    ", inner=False)])


def _tree(folder: Path, indent: str, *, inner: bool) -> Iterator[str]:
    """Lines for what a folder holds; of an inner one only its folders."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not inner or entry.is_dir())
    except OSError as error:
        yield f"{indent}(cannot be read: {error.strerror})"
        return
    for entry in entries[:_MAX_TREE_ENTRIES]:
        yield indent + _described(entry)
        if entry.is_dir() and not inner:
            yield from _tree(entry, indent + "  ", inner=True)
    if len(entries) > _MAX_TREE_ENTRIES:
        yield f"{indent}... and {len(entries) - _MAX_TREE_ENTRIES:,} more"
    if not entries and not inner:
        yield f"{indent}(nothing)"


def _described(path: Path) -> str:
    if not path.is_dir():
        return path.name
    try:
        images = sum(walk.is_image(entry.name) for entry in path.iterdir())
    except OSError as error:
        return f"{path.name}/ (cannot be read: {error.strerror})"
    return f"{path.name}/" + (f" ({images:,} image{'' if images == 1 else 's'})" if images else "")


def _training_folders(root: Path, notes: Notes, reading: int) -> dict[str, Path]:
    """Folders of the splits, `train` included: `root` itself where there are only class folders."""
    if root.is_file():
        raise DataError(f"{root}: is a file; expected the folder that holds the images\n{expected_trees(root.parent)}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data.root must be the folder of the images\n{expected_trees(root)}")
    found = split_folders(root, notes, reading) or {"train": root}
    if "train" in found:
        return found
    name = next(iter(found.values())).name
    raise DataError(
        f"{root}: train/ is missing (or, if {name}/ is a class, put its images directly into it)\n{found_tree(root)}\n"
        f"{expected_trees(root)}"
    )


def _divided(named: dict[str, list[Path]], others: list[Path], notes: Notes) -> dict[str, list[Path]]:
    """Folders by split: those that have the name of a split and are one."""
    pure, mixed = [], []
    for folder in chain(*named.values()):
        inner = walk.subfolders(folder, notes)
        if not walk.loose_images(folder):
            pure += [folder] if any(not walk.is_only_output(place) for place in inner) else []
        elif any(_is_filled(place) for place in inner):
            mixed.append(folder)
    filled = [folder for folder in others if _is_filled(folder)]
    # A split may hold a stray picture, and a class may hold folders: the folders beside it decide.
    chosen = pure + (mixed if pure or not filled else [])
    splits = {split: [folder for folder in folders if folder in chosen] for split, folders in named.items()}
    splits = {split: folders for split, folders in splits.items() if folders}
    if not splits:
        return {} if filled else named  # only folders of these names: a caller that needs classes reports it
    if "train" not in splits:
        return splits | ({"train": named["train"]} if "train" in named else {})
    if len(splits) == 1:
        note_unused_classes(splits["train"][0], filled, notes)
    for folder in chain(filled, *named.values()):
        if folder not in chosen:
            notes.add("skipped folders next to the splits", folder)
    return splits


def _is_filled(folder: Path) -> bool:
    return any(walk.image_entries(folder, Notes(folder)))


def _suggestion(root: Path, train: Path, names: tuple[str, ...]) -> str:
    """Suggestion of what is meant where a folder has fewer than two classes."""
    for inner in (train / name for name in names) if train == root else ():
        if any((inner / name).is_dir() for name in _SPLIT_NAMES["train"]):
            return f". Did you mean {inner}?"
    if walk.loose_images(train):
        return ". It holds images directly: put those of each class into a folder named after the class"
    return ""


def _reject_unsupported_formats(folder: Path) -> None:
    """Raise DataError for a folder without images that looks like a class with pictures in unsupported formats."""
    notes = Notes(folder)
    list(walk.image_entries(folder, notes))
    pictures = {ending: number for ending, number in notes.endings.items() if ending in _UNSUPPORTED_ENDINGS}
    if pictures:
        raise DataError(
            f"{folder}: holds {sum(pictures.values()):,} pictures in unsupported formats ({', '.join(sorted(pictures))}); "
            f"convert them, for example to .jpg (known endings: {' '.join(sorted(EXTENSIONS))})"
        )


def _files(
    split: str, folder: Path, classes: tuple[str, ...], images: dict[str, list[tuple[Path, os.stat_result]]]
) -> list[ImageFile]:
    unknown_classes = sorted(set(images) - set(classes))
    if unknown_classes:
        raise DataError(
            f"{folder}: class folder {unknown_classes[0]!r} is not in train/, which defines the classes of every split. "
            f"Rename it, delete it, or add it to train/"
        )
    files = []
    for label, name in enumerate(classes):
        found = images.get(name, [])
        files += [ImageFile(path, label, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in found]
        if not found and split == "train":
            raise DataError(
                f"{folder / name}: holds no images, so this class cannot be learned; add images or delete the folder "
                f"(known endings: {' '.join(sorted(EXTENSIONS))})"
            )
    if not files:
        raise DataError(f"{folder}: no images in its class folders; known endings: {' '.join(sorted(EXTENSIONS))}")
    return files
