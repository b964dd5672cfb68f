"""Images with known classes for evaluation: those of a folder, or those that a run held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.folder.decoder import Decoded, Decoder, decode_files
from trainer.data.folder.layout import class_images, split_folders
from trainer.data.folder.walk import Notes, normal_form
from trainer.errors import DataError


@dataclass
class FileImages:
    """Images in files on disk."""

    name: str  # split or folder, for messages and files
    paths: list[str]
    labels_N: NDArray[np.int64]  # indices in the model's list of classes
    remarks: list[str] = field(default_factory=list)  # reasons to doubt figures on these images

    def title(self, row: int) -> str:
        """Path of an image."""
        return self.paths[row]

    def pixels(self, rows: Sequence[int], decoder: Decoder) -> Decoded:
        """Decode images; the indices are their rows."""
        pixels_NHWC, kept, lost = decode_files(decoder, [self.paths[row] for row in rows])
        return pixels_NHWC, [rows[index] for index in kept], lost


@dataclass
class ArrayImages:
    """Images in memory, such as the embedded digits; attributes and methods are those of `FileImages`."""

    name: str
    pixels_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    remarks: list[str] = field(default_factory=list)

    def title(self, row: int) -> str:
        """Number of an image within the split, from 0."""
        return f"{self.name}/{row}"

    def pixels(self, rows: Sequence[int], decoder: Decoder) -> Decoded:
        """Return images unchanged; DataError when the model has another input size."""
        side = self.pixels_NHWC.shape[1]
        if decoder.image_size != side:
            raise DataError(
                f"these images are {side} pixels wide, but the model needs {decoder.image_size}; give pictures with --data DIR"
            )
        return self.pixels_NHWC[list(rows)], list(rows), []


LabelledImages = FileImages | ArrayImages


def folder_images(folder: Path, classes: Sequence[str], split: str | None) -> FileImages:
    """Find the images of a folder `folder/<class>/*`, or of a split in it (None: `test`, or `val`).

    The order of `classes` determines the labels. DataError when a folder's name is no class, or there are no images.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: {'is a file' if folder.is_file() else 'no such folder'}; expected {folder}/<class>/*.jpg"
        )
    notes = Notes(folder)
    name, found = _split_folder(folder, split, classes, notes)
    images = class_images(found, notes, flat=found == folder)
    labels = {normal_form(name): label for label, name in enumerate(classes)}
    unknown_classes = [name for name in images if name not in labels]
    if unknown_classes:
        raise DataError(
            f"{found}: class folder {unknown_classes[0]!r} is not a class of the model, whose classes are {', '.join(classes)}. "
            f"Rename or delete the folder"
        )
    pairs = [(str(path), labels[name]) for name, of_class in images.items() for path, _ in of_class]
    if not pairs:
        raise DataError(f"{found}: no images in folders named after classes of the model: {', '.join(classes)}")
    paths, numbers = zip(*pairs, strict=True)
    return FileImages(name, list(paths), np.array(numbers, dtype=np.int64), notes.lines())


def _split_folder(folder: Path, split: str | None, classes: Sequence[str], notes: Notes) -> tuple[str, Path]:
    """Folder of a split, or the folder itself where it has no splits."""
    splits = split_folders(folder, notes)
    for name in (split,) if split else ("test", "val"):
        if name in splits:
            return name, splits[name]
    if split and splits:
        raise DataError(f"{folder}: has no {split}/")
    if "train" in splits and splits["train"].name not in classes:
        raise DataError(f"{folder}: has no test/ or val/; to evaluate on the images of train/, give --split train")
    return folder.resolve().name or "root", folder
