"""Many small pictures in one PNG file, with what is known of each; any viewer shows it. Needs no PyTorch."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from trainer.run.atomic import write_atomically

_COLUMNS = 8
_LARGEST_SIDE = 64
"""Pixels: larger pictures are made smaller, since a terminal shows no more."""
_FACTS = "r18-tui"
"""The text in the file that says how it is divided and what is in it."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Pictures of one size.

    Attributes:
        pixels_NHWC: uint8, square.
        captions: What is known of each.
        facts: What is known of all.
    """

    pixels_NHWC: NDArray[np.uint8]
    captions: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Replace a file.

    Args:
        path: Of the file; its folder is made.
        sheet: At least one picture.

    Raises:
        OSError: When it cannot be written.
    """
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
    """What `write_sheet` has written.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is no such file.
    """
    try:
        with Image.open(path, formats=("png",)) as image:
            told = json.loads(str(image.info.get(_FACTS, "")) or "null")
            pixels_HWC = np.asarray(image.convert("RGB"))
    except SyntaxError as error:  # Pillow's word for a broken file
        raise ValueError(f"{path}: damaged: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("captions"), list):
        raise ValueError(f"{path}: no sheet of pictures of r18-tui")
    side, captions = int(told["side"]), told["captions"]
    rows, columns = pixels_HWC.shape[0] // side, pixels_HWC.shape[1] // side
    if not 0 < len(captions) <= rows * columns:
        raise ValueError(f"{path}: {len(captions)} captions for {rows * columns} pictures")
    tiles = pixels_HWC.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows * columns, side, side, 3)
    return Sheet(pixels_NHWC=tiles[: len(captions)], captions=captions, facts=dict(told.get("facts", {})))


def resized(pixels_HWC: NDArray[np.uint8], side: int) -> Image.Image:
    """A picture at another size, each pixel the mean of those that it stands for."""
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC))
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BOX)
