"""Strips picture files of data that only describe their pixels: texts, profiles, resolutions. Torch-free.

Damage in these makes Pillow refuse a file whose pixels are intact.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_WANTED = (frozenset({b"tRNS", b"eXIf"}), frozenset({b"eXIf"}), frozenset[bytes]())


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield versions of a whole PNG or JPEG file with less and less data beside pixels; orientation stays longest.

    Yields nothing for other formats, or where there is nothing to remove.
    """
    try:
        bare = [_png(data, wanted) for wanted in _WANTED] if data.startswith(_PNG) else []
        yield from (file for file in bare or ([_jpeg(data)] if data.startswith(_JPEG) else []) if file != data)
    except (struct.error, IndexError):
        return  # the file's structure is damaged, too


def _png(data: bytes, wanted: frozenset[bytes]) -> bytes:
    """Keep the needed chunks, with their checksums, and the wanted ones, with new checksums."""
    parts, at = [_PNG], len(_PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in _NEEDED:
            parts.append(data[at:end])
        elif kind in wanted:
            parts.append(data[at : end - 4] + struct.pack(">I", zlib.crc32(data[at + 4 : end - 4])))
        at = end
    return b"".join(parts)


def _jpeg(data: bytes) -> bytes:
    """Drop comments and application data; keep EXIF and a complete Adobe segment, which gives the storage of colours."""
    parts, at = [_JPEG], 2
    while data[at + 1] != 0xDA:  # up to the first scan
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        body, marker = data[at + 4 : end], data[at + 1]
        described = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not described or body.startswith(b"Exif\0\0") or (body.startswith(b"Adobe") and len(body) >= 12):
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])
