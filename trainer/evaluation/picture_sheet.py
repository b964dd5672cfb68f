"""Many small pictures in one PNG file, with captions; any image viewer shows it. Needs no PyTorch."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from trainer.host.atomic_files import write_atomically

_COLUMNS = 8
_LARGEST_SIDE = 64  # pixels: larger pictures are scaled down, since a terminal shows no more
_CAPTION_WORDS = ("class", "predicted", "name", "mixed_with")
_CAPTION_SHARES = ("confidence", "share")
_LARGEST_HEAT = 64  # most places of an activation map in each direction
_LARGEST_FILE, _LARGEST_PICTURE = 2**24, 4096
"""Largest file (bytes) and side (pixels) that are read: a run directory may come from an untrusted source."""
_FACTS = "r18-tui"  # key of the PNG text that describes the layout and the captions


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Pictures of one size."""

    pixels_NHWC: NDArray[np.uint8]  # square
    captions: list[dict[str, Any]]  # facts about each picture
    facts: dict[str, Any] = field(default_factory=dict)  # facts about all pictures


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Write a sheet of at least one picture to a file, whose folder is created; OSError when that fails."""
    side = min(sheet.pixels_NHWC.shape[1], _LARGEST_SIDE)
    columns = min(_COLUMNS, len(sheet.captions))
    image = Image.new("RGB", (columns * side, -(-len(sheet.captions) // columns) * side))
    for index, pixels_HWC in enumerate(sheet.pixels_NHWC):
        row, column = divmod(index, columns)
        image.paste(resized(pixels_HWC, side), (column * side, row * side))
    text = PngImagePlugin.PngInfo()
    text.add_text(_FACTS, json.dumps({"side": side, "captions": sheet.captions, "facts": sheet.facts}))
    file = io.BytesIO()
    image.save(file, "png", pnginfo=text)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, file.getvalue())


def read_sheet(path: Path) -> Sheet:
    """Read a sheet written by `write_sheet`; OSError when the file cannot be read, ValueError when it is no sheet."""
    if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
        raise OSError(f"{path}: missing, or too large for a sheet of pictures")
    try:
        with Image.open(path, formats=("png",)) as image:
            if max(image.size) > _LARGEST_PICTURE:
                raise ValueError(f"{path}: {image.size[0]}x{image.size[1]} pixels is too large")
            described = json.loads(str(image.info.get(_FACTS, "")) or "null")
            pixels_HWC = np.asarray(image.convert("RGB"))
    except (
        SyntaxError,
        RecursionError,
        Image.DecompressionBombError,
    ) as error:  # the first is raised by Pillow for broken files
        raise ValueError(f"{path}: damaged: {error}") from error
    side, captions = _checked(path, described)
    rows, columns = pixels_HWC.shape[0] // side, pixels_HWC.shape[1] // side
    if not 0 < len(captions) <= rows * columns or pixels_HWC.shape[:2] != (rows * side, columns * side):
        raise ValueError(f"{path}: {len(captions)} captions for {rows * columns} pictures")
    tiles = pixels_HWC.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows * columns, side, side, 3)
    facts = described.get("facts")
    return Sheet(pixels_NHWC=tiles[: len(captions)], captions=captions, facts=facts if isinstance(facts, dict) else {})


def _checked(path: Path, described: Any) -> tuple[int, list[dict[str, Any]]]:
    """Validated side and captions of a sheet from an untrusted file; ValueError when they are damaged."""
    side, captions = (described.get("side"), described.get("captions")) if isinstance(described, dict) else (None, None)
    if not isinstance(side, int) or not 0 < side <= _LARGEST_SIDE or not isinstance(captions, list):
        raise ValueError(f"{path}: not a sheet of pictures from r18-tui")
    for caption in captions:
        if not isinstance(caption, dict):
            raise ValueError(f"{path}: a caption is not a JSON object")
        words = all(isinstance(caption.get(key, ""), str) for key in _CAPTION_WORDS)
        shares = all(_is_share(caption.get(key, 0.0)) for key in _CAPTION_SHARES)
        if not (words and shares and _is_heat(caption.get("heat", [[0]]))):
            raise ValueError(f"{path}: a caption is invalid: {caption!s:.200}")
    return side, captions


def heat_of(caption: dict[str, Any]) -> NDArray[np.uint8] | None:
    """The activation map of a picture: uint8, 0 to 255; None where none was kept."""
    heat = caption.get("heat")
    return None if heat is None else np.array(heat, np.uint8)


def _is_heat(value: Any) -> bool:
    """Whether a value is a map: rows of the same number of whole numbers from 0 to 255."""
    if not isinstance(value, list) or not 0 < len(value) <= _LARGEST_HEAT:
        return False
    if not all(isinstance(row, list) and 0 < len(row) <= _LARGEST_HEAT for row in value):
        return False
    numbers = all(isinstance(number, int) and 0 <= number <= 255 for row in value for number in row)
    return numbers and len({len(row) for row in value}) == 1


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def resized(pixels_HWC: NDArray[np.uint8], side: int) -> Image.Image:
    """Resize a picture; when shrinking, each pixel is the mean of those it replaces."""
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC))
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BOX)
