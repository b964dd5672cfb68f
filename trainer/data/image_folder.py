"""The user's own images: `root/train/<class>/*` with `root/val` and/or `root/test`.

The class list of `train` is the law for every split, files are taken in sorted order, and a file that cannot be decoded
is left out and named, never replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainer.data.dataset import DataSet, Progress, ResidentSplit, Split, fingerprint_of
from trainer.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif"})

_CHUNK = 256

_MOMENT_S = 0.5
"""Pause before an image is read once more: a network share that did not answer may do so then."""


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""How to turn a picture upright, by its EXIF orientation. Source: EXIF 2.32, tag 0x0112."""


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message says why, without the path."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How a file becomes pixels: EXIF-transposed, RGB with alpha over white, short side resized, centre-cropped.

    Attributes:
        image_size: Side of the square that comes out, in pixels.
        crop_pct: image_size over the short side after resizing.
    """

    image_size: int
    crop_pct: float

    @property
    def resize(self) -> int:
        """The short side after resizing, in pixels."""
        return max(self.image_size, round(self.image_size / self.crop_pct))

    def __call__(self, path: str | Path) -> NDArray[np.uint8]:
        """Read and decode one file.

        Returns:
            uint8 (image_size, image_size, 3).

        Raises:
            UnreadableImageError: When it is missing, truncated or no image.
        """
        try:
            with Image.open(path) as file:
                return self.convert(file)
        except MemoryError as error:
            raise MemoryError(f"{path}: too little memory to decode it") from error
        except Exception as error:
            # Pillow's decoders fail in as many ways as files are broken: OSError, SyntaxError, TypeError, struct.error ...
            raise UnreadableImageError(str(error) or type(error).__name__) from error

    def convert(self, image: Image.Image) -> NDArray[np.uint8]:
        """The same for an opened image."""
        image, side = _rgb(_upright(image)), self.image_size
        if image.size != (side, side) or self.resize != side:
            scale = self.resize / min(image.size)
            width, height = (max(self.resize, round(length * scale)) for length in image.size)
            # The crop in the picture's own pixels: resized as a whole, a picture of 1x400,000 would take all memory.
            across, down = image.width / width, image.height / height
            left, top = (width - side) // 2, (height - side) // 2
            box = (left * across, top * down, (left + side) * across, (top + side) * down)
            # Pillow's bilinear filter averages over all pixels when it shrinks (antialiasing), those around the box included.
            image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
        return np.array(image, dtype=np.uint8)


class Reading(NamedTuple):
    """Images that were decoded, and what could not be.

    Attributes:
        pixels_NHWC: uint8, of the images that could be read.
        kept: Which of those that were asked for these are, in order.
        lost: Path and reason of the others.
    """

    pixels_NHWC: Tensor
    kept: list[int]
    lost: list[tuple[str, str]]


@dataclass
class FolderSplit:
    """Images that are decoded when they are asked for.

    Attributes:
        paths: Files, by row.
        labels_N: int64 on the CPU.
    """

    paths: list[str]
    labels_N: Tensor
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Decode some images on all cores.

        Raises:
            DataError: When a file cannot be decoded any more.
        """
        reading = self.read(rows, threads=os.cpu_count())
        for path, reason in reading.lost:
            raise DataError(f"{path}: was readable at the start and is not now: {reason}")
        return reading.pixels_NHWC

    def read(self, rows: Sequence[int], *, threads: int | None) -> Reading:
        """Decode some images and leave out those that cannot be read any more: see `read_images`."""
        return read_images(self.decoder, [self.paths[row] for row in rows], threads=threads)

    def subset(self, rows: Tensor) -> FolderSplit:
        """Some images as a split of their own."""
        return FolderSplit([self.paths[row] for row in rows.tolist()], self.labels_N[rows], self.decoder)


def read_images(decoder: Decoder, paths: Sequence[str], *, threads: int | None = 1, shared: bool = False) -> Reading:
    """Decode files and leave out those that cannot be read, also not a moment later.

    Args:
        decoder: How they become pixels.
        paths: Which ones.
        threads: How many to decode at once; None for as many as there are cores.
        shared: Put the pixels into memory that another process can map.
    """
    side = decoder.image_size
    pixels = torch.empty(len(paths), side, side, 3, dtype=torch.uint8)
    if shared:
        pixels.share_memory_()
    results = _attempt(decoder, paths, threads)
    again = [index for index, result in enumerate(results) if isinstance(result, str)]
    if again:
        time.sleep(_MOMENT_S)
        for index, result in zip(again, _attempt(decoder, [paths[index] for index in again], threads), strict=True):
            results[index] = result
    kept: list[int] = []
    lost: list[tuple[str, str]] = []
    for index, result in enumerate(results):
        if isinstance(result, str):
            lost.append((paths[index], result))
        else:
            pixels[len(kept)] = torch.from_numpy(result)
            kept.append(index)
    return Reading(pixels[: len(kept)], kept, lost)


class Keep(Enum):
    """What becomes of a split's images when a folder is loaded."""

    RESIDENT = "decoded now and kept in memory"
    STREAM = "decoded once now, to find the unreadable ones, and again whenever they are needed"
    LAZY = "decoded only when they are needed"


def load_image_folder(root: Path, *, decoder: Decoder, keep: Callable[[str], Keep], progress: Progress) -> DataSet:
    """Find all images of a folder, check them and keep what is asked for.

    Args:
        root: Holds `train/` and `test/` and/or `val/`.
        decoder: Brings files to the network's size.
        keep: What becomes of the split of a name.
        progress: Told about the decoding.

    Raises:
        DataError: When the layout is not as expected; the message draws both trees.
    """
    folders = _split_folders(root)
    classes = _class_names(folders["train"])
    splits: dict[str, Split] = {}
    identity: dict[str, str] = {"classes": "\n".join(classes)}
    skipped: list[tuple[str, str]] = []
    for name, folder in folders.items():
        files = _files(folder, classes)
        names = fingerprint_of({str(path.relative_to(root)): str(size) for path, _, size in files})
        identity[name] = f"{names} ({len(files):,} images, {sum(size for _, _, size in files):,} bytes)"
        if not files:
            raise DataError(f"{folder}: no images in its class folders; known endings: {' '.join(sorted(EXTENSIONS))}")
        splits[name] = _load_split(files, decoder, keep(name), name, progress, skipped)
    return DataSet(
        name=root.name or str(root),
        classes=classes,
        splits=splits,
        fingerprint=fingerprint_of(identity),
        identity=identity,
        preprocess={
            "resize": decoder.resize, "crop_pct": decoder.crop_pct, "interpolation": "bilinear", "antialias": True,
        },
        skipped=tuple(skipped),
    )  # fmt: skip


def count_images(root: Path) -> int:
    """Files with an image ending in all splits of a folder, to see whether they fit in memory."""
    return sum(
        path.suffix.lower() in EXTENSIONS for folder in _split_folders(root).values() for path in folder.rglob("*")
    )


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the tags anew as well, and fails on pictures whose other tags are odd.
    turn = _TURNS.get(image.getexif().get(0x0112, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 and show white.
        grey = np.asarray(image, dtype=np.int64)
        image = Image.fromarray(
            (grey.clip(0, 65535) // 257).astype(np.uint8) if grey.max() > 255 else grey.astype(np.uint8)
        )
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known scale; convert the file to 8 bits")
    return image if image.mode == "RGB" else image.convert("RGB")


def _split_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; data.root must hold train/ and test/ (or val/)\n{_expected_tree(root)}"
        )
    found = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if "train" not in found or len(found) < 2:
        missing = "train/" if "train" not in found else "test/ or val/"
        raise DataError(f"{root}: {missing} is missing\n{_found_tree(root)}\n{_expected_tree(root)}")
    return found


def _expected_tree(root: Path) -> str:
    return (
        f"expected:\n  {root.name}/\n    train/<class>/*.jpg\n    test/<class>/*.jpg   (and/or val/<class>/*.jpg)"
        "\nWithout a held-out folder, move some images of each class from train/ into test/."
    )


def _found_tree(root: Path) -> str:
    entries = sorted(root.iterdir())[:12]
    return "found:\n" + "\n".join(
        f"  {entry.name}{'/' if entry.is_dir() else ''}" for entry in entries or [Path("(nothing)")]
    )


def _class_names(train: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{train}: the class folder {name!r} is not named in UTF-8; rename it: its name goes into checkpoints and "
                f"exported models"
            ) from None
    if len(names) < 2:
        raise DataError(
            f"{train}: found {len(names)} class folder{'' if len(names) == 1 else 's'}; a classifier needs at least two\n"
            f"{_found_tree(train)}\n{_expected_tree(train.parent)}"
        )
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int, int]]:
    """Sorted (path, label, size in bytes)."""
    strangers = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")} - set(
        classes
    )
    if strangers:
        raise DataError(
            f"{folder}: class folder {sorted(strangers)[0]!r} is not in train/; the classes of train/ hold for every split. "
            f"Rename it, remove it, or add it to train/"
        )
    return [
        (path, label, path.stat().st_size)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in EXTENSIONS and path.is_file()
    ]


def _attempt(decoder: Decoder, paths: Sequence[str], threads: int | None) -> list[NDArray[np.uint8] | str]:
    if threads == 1:
        return [_decoded_or_reason(decoder, path) for path in paths]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda path: _decoded_or_reason(decoder, path), paths))


def _decoded_or_reason(decoder: Decoder, path: str | Path) -> NDArray[np.uint8] | str:
    try:
        return decoder(path)
    except UnreadableImageError as error:
        return str(error)


def _load_split(
    files: list[tuple[Path, int, int]],
    decoder: Decoder,
    keep: Keep,
    split: str,
    progress: Progress,
    skipped: list[tuple[str, str]],
) -> Split:
    if keep is Keep.LAZY:
        labels = torch.tensor([label for _, label, _ in files], dtype=torch.long)
        return FolderSplit([str(path) for path, _, _ in files], labels, decoder)
    side, resident = decoder.image_size, keep is Keep.RESIDENT
    kept: list[int] = []
    pixels = np.empty((len(files) if resident else 0, side, side, 3), dtype=np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            results: Iterable[NDArray[np.uint8] | str] = pool.map(
                lambda file: _decoded_or_reason(decoder, file[0]), chunk
            )
            for row, result in enumerate(results, start):
                if isinstance(result, str):
                    skipped.append((str(files[row][0]), result))
                    continue
                if resident:
                    pixels[len(kept)] = result
                kept.append(row)
            progress(f"decoding {split} images", min(start + _CHUNK, len(files)) / len(files))
    if not kept:
        raise DataError(
            f"{files[0][0].parent.parent}: none of its {len(files)} images could be read; first: {skipped[-1][1]}"
        )
    labels = torch.tensor([files[row][1] for row in kept], dtype=torch.long)
    if resident:
        return ResidentSplit(torch.from_numpy(pixels[: len(kept)]), labels)
    return FolderSplit([str(files[row][0]) for row in kept], labels, decoder)
