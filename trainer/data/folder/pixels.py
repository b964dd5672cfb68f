"""Reads picture files as upright 8-bit RGB: the one reader that all commands share. Torch-free.

Increase `READING` with any change to pixels or to which files can be read.
"""

from __future__ import annotations

import io
import itertools
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.config.reading_version import READING
from trainer.data.folder.strip_metadata import without_metadata
from trainer.host.file_kinds import reason_of

T = TypeVar("T")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""Transposition that turns a picture upright, by EXIF orientation. Source: EXIF 2.32, tag 0x0112."""

_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _MAX_SAMPLE, _SAMPLE_FORMAT = 258, 262, 281, 339
"""TIFF tags. Source: TIFF 6.0."""
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message gives the reason, without the path."""


def load(source: str | Path | bytes, use: Callable[[Image.Image], T], reading: int = READING) -> T:
    """Open a picture file, given by its path or content, and pass it to `use`; UnreadableImageError when it cannot be read.

    `use` gets the opened file, whose pixels are not loaded yet; it is called again where metadata are damaged.
    MemoryError when the picture does not fit in memory.
    """
    _silence_pillow()
    try:
        # Never opened by name: Pillow would then map some TIFFs into memory with width and height exchanged.
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise UnreadableImageError(reason_of(error, None)) from error
    errors: list[Exception] = []
    try:
        for version in itertools.chain([data], without_metadata(data) if reading > 1 else ()):
            try:
                with Image.open(io.BytesIO(version)) as image:
                    return use(image)
            except MemoryError:
                raise
            # Pillow's decoders raise many types for broken files: OSError, SyntaxError, TypeError, struct.error ...
            except Exception as error:  # noqa: BLE001
                errors.append(error)
                if isinstance(error, Image.DecompressionBombError):
                    break
        # The reported reason is that of the file itself.
        raise UnreadableImageError(reason_of(errors[0], data)) from errors[0]
    finally:
        errors.clear()  # their tracebacks hold this frame: the cycle would keep the file and its pixels in memory


def upright_rgb(image: Image.Image, reading: int = READING) -> Image.Image:
    """Convert a picture to upright 8-bit RGB, with transparent parts over white.

    The picture is in memory, or opened but not loaded. ValueError when the scale of its pixels is unknown.
    """
    if reading == 1:
        return _rgb_of_version_1(_transposed(image, orientation(image, 1)))
    stored = _stored_as(image)
    low = _low_bytes(image) if "RGB;16B" in stored and "transparency" in image.info else None
    number = orientation(image)
    return _transposed(_rgb(image, stored) if low is None else _without_colour(image, low), number)


def orientation(image: Image.Image, reading: int = READING) -> int:
    """EXIF orientation, 1 to 8; 1 where it is missing or damaged. Loads the pixels: Pillow then turns a TIFF itself."""
    if reading == 1:
        found: int = image.getexif().get(_ORIENTATION, 1)
        return found
    image.load()
    try:
        number = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - each kind of damage has its own type; a picture without orientation is upright
        return 1
    return number if isinstance(number, int) and number in _TURNS else 1


def is_deep(image: Image.Image) -> bool:
    """Whether an opened file, not loaded yet, has more than 8 bits per value."""
    return image.mode.startswith("I") or re.search(r";16[BLN]", _stored_as(image)) is not None


def _transposed(image: Image.Image, number: int) -> Image.Image:
    # Not ImageOps.exif_transpose: it also rewrites the tags, and fails on pictures with other tags that are odd.
    turn = _TURNS.get(number)
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, stored: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known scale; convert the file to 8 bits")
    if image.mode.startswith("I") or (image.mode == "L" and _is_signed(getattr(image, "tag_v2", {}))):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La") or "transparency" in image.info:
        _scale_transparent_colour(image, stored)
        return _over_white(image.convert("LA") if image.mode == "La" else image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Scale grey of signed 8 bits or of 12 to 32 bits to 8 bits: white is the largest value that the file can hold.

    Source: PNG specification, 13.12, linear with rounding. An sBIT chunk changes nothing: by 11.3.3.4 values fill all bits.
    """
    tags: Any = getattr(image, "tag_v2", {})
    white, unsigned = _white(image, tags), not _is_signed(tags)
    held = np.asarray(image).view(np.int8) if image.mode == "L" else np.asarray(image)
    grey = held.astype(np.int64 if image.mode in ("I", "L") else np.uint32)
    if image.mode in ("I", "L"):  # Pillow holds 32 bits as signed
        grey = grey & 0xFFFFFFFF if unsigned and white > 0x7FFFFFFF else grey.clip(0)
    scaled = ((grey.clip(None, white) * 255 + white // 2) // white).astype(np.uint8)
    if _first(tags, _PHOTOMETRIC, 1) == 0:  # 0 is white; Pillow inverts 8 bits only
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[grey == transparent] = 255
    return scaled


def _white(image: Image.Image, tags: Any) -> int:
    """Value of white, from the file's depth: that of its type, or the fewer bits that a TIFF declares."""
    sixteen = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    bits = _first(tags, _BITS, 16 if sixteen else 32)
    signed = _is_signed(tags) if tags else not sixteen
    largest: int = 2 ** (bits - signed) - 1
    declared = _first(tags, _MAX_SAMPLE, largest)
    # Values other than 2^n - 1 are the brightest pixel of this picture and do not give its scale.
    says_depth = 255 <= declared < largest and declared & (declared + 1) == 0
    return declared if says_depth else largest


def _is_signed(tags: Any) -> bool:
    return _first(tags, _SAMPLE_FORMAT, 1) == 2


def _first(tags: Any, tag: int, default: int) -> int:
    """First value of a TIFF tag if it is a whole number, else the default."""
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def _low_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """Lower bytes (H, W, 3) of a PNG of 16-bit colours; Pillow reads only the higher ones."""
    file: Any = image.fp  # type: ignore[attr-defined]
    file.seek(0)
    with Image.open(io.BytesIO(file.read())) as again:
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        return np.asarray(again)


def _without_colour(image: Image.Image, low: NDArray[np.uint8]) -> Image.Image:
    """Put a PNG of 16-bit colours over white: its transparent colour has all 16 bits. Source: PNG specification, 11.3.2.1."""
    high = np.array(image)
    high[(high.astype(np.uint16) << 8 | low == image.info["transparency"]).all(axis=2)] = 255
    return Image.fromarray(high)


def _scale_transparent_colour(image: Image.Image, stored: str) -> None:
    """Scale the transparent grey of a PNG of 2 or 4 bits to the 8 bits that Pillow compares it with."""
    colour = image.info.get("transparency")
    if isinstance(colour, int) and (bits := re.search(r"'L;([24])'", stored)):
        image.info["transparency"] = colour * {"2": 85, "4": 17}[bits[1]]


def _stored_as(image: Image.Image) -> str:
    """Pillow's raw modes of an opened file's pixels; they are gone once the pixels are loaded."""
    return str([tile[3] for tile in getattr(image, "tile", ())])


def _silence_pillow() -> None:
    """Suppress Pillow's warnings on standard error. Not with `catch_warnings`, which is not thread-safe."""
    if _PILLOW_FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    if not (logger := logging.getLogger("PIL")).handlers:
        logger.addHandler(logging.NullHandler())


def _rgb_of_version_1(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _over_white(image)
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.int64)
        image = Image.fromarray(
            (grey.clip(0, 65535) // 257).astype(np.uint8) if grey.max() > 255 else grey.astype(np.uint8)
        )
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known scale; convert the file to 8 bits")
    return image if image.mode == "RGB" else image.convert("RGB")
