"""From an image file to the pixels that the network sees. Torch-free: prediction from an ONNX file needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from trainer.config.reading_version import READING
from trainer.config.schema import DataConfig
from trainer.data.folder.pixels import UnreadableImageError, load, upright_rgb
from trainer.host.limits import usable_cpus

LETTERBOX_GREY = (128, 128, 128)
"""What lies beside a letterboxed picture."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How a file becomes pixels: upright, RGB with alpha over white, then brought to a square.

    Attributes:
        image_size: Side of the square that comes out, in pixels.
        crop_pct: image_size over the short side after resizing, where the middle is cut out.
        fit: `crop` cuts out the middle; `letterbox` brings the long side to image_size and puts grey beside the picture.
        reading: Version of the rules by which files become pixels (`data.reading`).
    """

    image_size: int
    crop_pct: float
    fit: str = "crop"
    reading: int = READING

    @classmethod
    def described_by(cls, preprocess: Any) -> Decoder:
        """The decoder that a model's metadata describe.

        Raises:
            ValueError: When they are damaged, or a newer version of this program has written them.
        """
        if not isinstance(preprocess, dict):
            raise ValueError(f"preprocess is no JSON object, but {preprocess!r:.60}")
        reading = preprocess.get("reading", 1)
        if isinstance(reading, int) and reading > READING:
            raise ValueError(f"reading {reading} is newer than this version of r18-tui, which knows 1 to {READING}")
        given = {"crop_pct": 1.0, "image_size": preprocess.get("size"), "reading": reading}
        given |= {key: preprocess[key] for key in ("crop_pct", "fit", "mean", "std") if key in preprocess}
        try:
            config = DataConfig.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}, found {first['input']!r:.60}") from None
        decoder = cls(image_size=config.image_size, crop_pct=config.crop_pct, fit=config.fit, reading=reading)
        fixed = {"channel_order": "RGB", "pixel_scale": 1 / 255, "resize": decoder.resize}
        for key, value in fixed.items():
            if preprocess.get(key, value) != value:
                raise ValueError(f"{key}: expected {value}, found {preprocess[key]!r:.60}")
        return decoder

    @property
    def resize(self) -> int:
        """The short side after resizing, in pixels, where the middle is cut out."""
        return max(self.image_size, round(self.image_size / self.crop_pct))

    def __call__(self, path: str | Path) -> NDArray[np.uint8]:
        """Read and decode one file.

        Returns:
            uint8 (image_size, image_size, 3).

        Raises:
            UnreadableImageError: When it is missing, truncated or no image.
        """
        try:
            return load(path, self.convert, self.reading)
        except MemoryError as error:
            raise MemoryError(f"{path}: too little memory to decode it") from error

    def convert(self, image: Image.Image) -> NDArray[np.uint8]:
        """The same for an opened image."""
        image, side = upright_rgb(image, self.reading), self.image_size
        if self.fit == "letterbox":
            return self._letterboxed(image)
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

    @property
    def description(self) -> dict[str, object]:
        """What it does, as exported models carry it."""
        if self.fit == "letterbox":
            how: dict[str, object] = {"fit": "letterbox", "fill": list(LETTERBOX_GREY)}
        else:
            how = {"fit": "crop", "resize": self.resize, "crop_pct": self.crop_pct}
        return how | {"interpolation": "bilinear", "antialias": True, "reading": self.reading}

    def _letterboxed(self, image: Image.Image) -> NDArray[np.uint8]:
        side = self.image_size
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        canvas = Image.new("RGB", (side, side), LETTERBOX_GREY)
        # Halves are rounded as Pillow's ImageOps.pad does it, so that others can do the same in one line.
        corner = round((side - width) * 0.5), round((side - height) * 0.5)
        canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), corner)
        return np.array(canvas, dtype=np.uint8)


def decode_files(decoder: Decoder, paths: Sequence[str]) -> tuple[NDArray[np.uint8], list[int], list[tuple[str, str]]]:
    """Decode some files on all cores.

    Args:
        decoder: How they become pixels.
        paths: Which ones.

    Returns:
        Pixels uint8 (N, S, S, 3) of those that can be read, which of `paths` these are, and path and reason of the others.
    """
    results = decoded_or_reasons(decoder, paths, usable_cpus())
    good = [(index, result) for index, result in enumerate(results) if not isinstance(result, str)]
    lost = [(path, result) for path, result in zip(paths, results, strict=True) if isinstance(result, str)]
    side = decoder.image_size
    pixels_NHWC = np.stack([result for _, result in good]) if good else np.empty((0, side, side, 3), np.uint8)
    return pixels_NHWC, [index for index, _ in good], lost


def decoded_or_reasons(decoder: Decoder, paths: Sequence[str], threads: int | None) -> list[NDArray[np.uint8] | str]:
    """Pixels of each file, or why it cannot be read; decoded in this thread when `threads` is 1."""

    def read(path: str) -> NDArray[np.uint8] | str:
        try:
            return decoder(path)
        except UnreadableImageError as error:
            return str(error)

    if threads == 1:
        return [read(path) for path in paths]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, paths))
