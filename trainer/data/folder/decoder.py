"""Decoding of image files to the network's pixels. Torch-free: prediction from an ONNX file needs no PyTorch."""

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

from trainer.config.data_config import DataConfig
from trainer.config.reading_version import READING
from trainer.data.folder.pixels import UnreadableImageError, load, upright_rgb
from trainer.host.limits import usable_cpus

Decoded = tuple[NDArray[np.uint8], list[int], list[tuple[str, str]]]
"""Pixels (N, S, S, 3) of the readable images, their indices (of an image source: rows), and path and reason of the others."""

LETTERBOX_GREY = (128, 128, 128)  # beside a letterboxed picture


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """Converts a file to pixels: upright, RGB with alpha over white, then fitted to a square."""

    image_size: int  # side of the resulting square, in pixels
    crop_pct: float  # image_size over the short side after resizing, for the centre crop
    fit: str = "crop"  # `crop` cuts out the centre; `letterbox` scales the long side to image_size and pads with grey
    reading: int = READING  # version of the rules for converting files to pixels (`data.reading`)

    @classmethod
    def described_by(cls, preprocess: Any) -> Decoder:
        """Create the decoder described by a model's metadata; ValueError when it is damaged or newer than this program."""
        if not isinstance(preprocess, dict):
            raise ValueError(f"preprocess is not a JSON object but {preprocess!r:.60}")
        reading = preprocess.get("reading", 1)
        if isinstance(reading, int) and reading > READING:
            raise ValueError(f"reading {reading} is newer than this version of r18-tui, which supports 1 to {READING}")
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
        """Short side after resizing, in pixels, for the centre crop."""
        return max(self.image_size, round(self.image_size / self.crop_pct))

    def __call__(self, path: str | Path) -> NDArray[np.uint8]:
        """Decode a file to uint8 (image_size, image_size, 3); UnreadableImageError when it cannot be read."""
        try:
            return load(path, self.convert, self.reading)
        except MemoryError as error:
            raise MemoryError(f"{path}: not enough memory to decode it") from error

    def convert(self, image: Image.Image) -> NDArray[np.uint8]:
        """Convert an opened image in the same way."""
        image, side = upright_rgb(image, self.reading), self.image_size
        if self.fit == "letterbox":
            return self._letterboxed(image)
        if image.size != (side, side) or self.resize != side:
            scale = self.resize / min(image.size)
            width, height = (max(self.resize, round(length * scale)) for length in image.size)
            # The crop is in the picture's own pixels: resizing all of a picture of 1x400,000 would take all memory.
            across, down = image.width / width, image.height / height
            left, top = (width - side) // 2, (height - side) // 2
            box = (left * across, top * down, (left + side) * across, (top + side) * down)
            # When shrinking, Pillow's bilinear filter averages over all pixels (antialiasing), including those around the box.
            image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
        return np.array(image, dtype=np.uint8)

    @property
    def description(self) -> dict[str, object]:
        """Settings of the decoder, in the form that exported models store."""
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
        # Halves are rounded as in Pillow's ImageOps.pad, so that users of an exported model can do the same in one line.
        corner = round((side - width) * 0.5), round((side - height) * 0.5)
        canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), corner)
        return np.array(canvas, dtype=np.uint8)


def decode_files(decoder: Decoder, paths: Sequence[str]) -> Decoded:
    """Decode files on all cores."""
    decoded, lost = decoded_and_lost(decoder, paths, usable_cpus())
    side = decoder.image_size
    pixels_NHWC = np.stack(list(decoded.values())) if decoded else np.empty((0, side, side, 3), np.uint8)
    return pixels_NHWC, list(decoded), lost


def decoded_and_lost(
    decoder: Decoder, paths: Sequence[str], threads: int | None
) -> tuple[dict[int, NDArray[np.uint8]], list[tuple[str, str]]]:
    """Pixels by index, and path and reason of the unreadable files; decoded in this thread when `threads` is 1."""

    def read(path: str) -> NDArray[np.uint8] | str:
        try:
            return decoder(path)
        except UnreadableImageError as error:
            return str(error)

    if threads == 1:
        results = [read(path) for path in paths]
    else:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(read, paths))
    decoded = {index: result for index, result in enumerate(results) if not isinstance(result, str)}
    return decoded, [(path, result) for path, result in zip(paths, results, strict=True) if isinstance(result, str)]
