"""PNG files made by hand, of kinds that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def chunk(kind: bytes, body: bytes, crc: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ crc)


def png(pixels: NDArray[Any], colour: int, bits: int, extra: bytes = b"") -> bytes:
    """A PNG file made by hand, as Pillow writes no transparent colours of 2, 4 and 16 bits."""
    rows = [np.packbits(np.unpackbits(row[:, None], 1)[:, 8 - bits :]) for row in pixels] if bits < 8 else pixels
    data = zlib.compress(b"".join(b"\0" + row.astype(f">u{max(bits // 8, 1)}").tobytes() for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
