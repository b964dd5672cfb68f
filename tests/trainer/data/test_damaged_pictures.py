"""Damaged picture files: read where the pixels are intact, else refused with the apparent kind of the file."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin

from tests.support.picture_files import (
    DECODER,
    RGB,
    assert_read_as,
    finding_of,
    read_by_pillow,
    tiff_of_entries,
)
from tests.support.png import chunk, png
from trainer.data.folder.pixels import UnreadableImageError
from trainer.host.file_kinds import looks_like


def exif_of_text() -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0A\0\0\0\0\0\0\0"


BIG = b"k\0\0" + zlib.compress(bytes(3 << 20))

CHUNKS = {
    "EXIF": chunk(b"eXIf", b"garbage"), "empty EXIF": chunk(b"eXIf", b""), "profile": chunk(b"iCCP", b"xx"),
    "large profile": chunk(b"iCCP", BIG), "large text": chunk(b"zTXt", BIG), "much text": 70 * chunk(b"zTXt", BIG[:3] + BIG[3:]),
    "gamma": chunk(b"gAMA", b"\0"), "resolution": chunk(b"pHYs", b"\0"), "chromaticities": chunk(b"cHRM", b"\0"),
    "intent": chunk(b"sRGB", b""), "checksum": chunk(b"tEXt", b"a\0b", crc=1), "compression": chunk(b"zTXt", b"a\0\7x"),
    "animation": chunk(b"acTL", b"\0"), "transparency": chunk(b"tRNS", b"\0"), "orientation": chunk(b"eXIf", exif_of_text()),
    "raw EXIF": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 10\nno hex\n"),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHUNKS)
def test_damage_outside_the_pixels_of_a_png_loses_nothing(tmp_path: Path, what: str) -> None:
    extra = CHUNKS[what]
    (tmp_path / "damaged.png").write_bytes(png(RGB, 2, 8, extra))
    assert_read_as(tmp_path / "damaged.png", RGB, documented=False)
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0")
    if b"eXIf" not in extra and b"exif" not in extra:
        (tmp_path / "turned.png").write_bytes(png(RGB, 2, 8, turned + extra))
        assert_read_as(tmp_path / "turned.png", RGB[::-1, ::-1], documented=False)


@pytest.mark.parametrize(
    "segment",
    [
        b"\xe0\0\6JFIF", b"\xe1\0\x12Exif\0\0II*\0\xff\xff\xff\xff", b"\xe2\0\x0eICC_PROFILE\0", b"\xee\0\7Adobe",
        b"\xe2\0\x08MPF\0xx", b"\xed\0\x13Photoshop 3.0\x008BIM"[:20] + b"\0", b"\xfe\0\2",
        b"\xe1" + struct.pack(">H", len(exif_of_text()) + 2) + exif_of_text(),
    ],
)  # fmt: skip
def test_damage_outside_the_pixels_of_a_jpeg_loses_nothing(tmp_path: Path, segment: bytes) -> None:
    memory = io.BytesIO()
    Image.fromarray(RGB).save(memory, "JPEG")
    data = memory.getvalue()
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "damaged.jpg").write_bytes(data[:2] + b"\xff" + segment + data[2:])
    assert_read_as(tmp_path / "damaged.jpg", read_by_pillow(tmp_path / "whole.jpg"), documented=False)


def test_damage_outside_the_pixels_of_webp_and_tiff_loses_nothing(tmp_path: Path) -> None:
    damage: dict[str, Any] = {"exif": b"garbage", "icc_profile": b"garbage"}
    Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True, xmp=b"\xff\xfe", **damage)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in ((274, "6"), (281, "white"), (305, "x"), (34665, "no EXIF")):
        tags.tagtype[number] = 2
        tags[number] = value
    Image.fromarray(RGB).save(tmp_path / "a.tif", icc_profile=b"garbage", tiffinfo=tags)
    for name in ("a.webp", "a.tif"):
        assert_read_as(tmp_path / name, RGB)


def test_damaged_pixels_are_unreadable(tmp_path: Path) -> None:
    whole = png(RGB, 2, 8, chunk(b"gAMA", b"\0"))
    for name, data in (("cut.png", whole[:-200]), ("flipped.png", whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:])):
        (tmp_path / name).write_bytes(data)
        assert finding_of(tmp_path / name).problem
        with pytest.raises(UnreadableImageError):
            DECODER(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"), (bytes(500), "file of zeros"), (b"\0\0\0\x18ftypheic\0\0\0\0mif1" + bytes(400), "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0", "HEIC"), (b"\0\0\0\x1cftypisom\0\0\0\0", "video"), (b"\x1a\x45\xdf\xa3", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"), (b"\n<!DOCTYPE html><html>404</html>", "HTML page"), (b"<HTML>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-LFS pointer"), (b"%PDF-1.7", "PDF"),
        (b"/annex/objects/SHA256E-s1", "git-annex pointer"), (b"just words\n", "text file"), ("Wörter\n".encode(), "text file"),
        (b'<?xml version="1.0"?><svg/>', "SVG"), (b'{"error": 404}', "JSON"), (b"PK\x03\x04", "ZIP"), (b"8BPS\0\1", "Photoshop"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG"), (b"\xff\xd8", "damaged JPEG"), (b"\x93NUMPY\1", "NumPy"),
        (bytes(range(128, 160)), "an unknown kind of file"),
    ],
)  # fmt: skip
def test_the_reason_names_the_apparent_kind_of_file(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError) as caught:
        DECODER(path)
    assert words in str(caught.value)
    assert finding_of(path).problem == str(caught.value), "the survey reports the same"
    assert not re.search("object at 0x|BytesIO", str(caught.value))


def big_endian(bits: int, photometric: int = 1, compression: int = 1, numbers: int = 1) -> bytes:
    """A big-endian TIFF file of one pixel."""
    entries = {
        256: 1, 257: 1, 258: bits, 259: compression, 262: photometric, 273: 8, 277: 1, 278: 1, 279: 8, 339: numbers,
    }  # fmt: skip
    directory = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in entries.items())
    return struct.pack(">2sHI8sH", b"MM", 42, 16, bytes(8), len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (big_endian(12), "(12 bits a pixel, unsigned values, big-endian, compression 1); convert it"),
        (big_endian(32), "(32 bits a pixel, unsigned"),
        (big_endian(16, 0), "(16 bits a pixel, unsigned values, big-endian, 0 is"),
        (big_endian(64, numbers=3), "64 bits a pixel, floating-point values"), (big_endian(24), "24 bits a pixel"),
        (big_endian(8, compression=4242), "compression 4242"), (big_endian(16, 32803), "a camera raw file"),
        (big_endian(12)[:60], "a damaged TIFF"),
        (b"\xff\xd8\xff\xc1" + struct.pack(">HBHHB3B", 11, 12, 8, 8, 1, 1, 17, 0), "cannot handle 12-bit layers"),
        (b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB6B", 14, 8, 8, 8, 2, 1, 17, 0, 2, 17, 0), "cannot handle 2-layer images"),
    ],
)  # fmt: skip
def test_an_intact_file_of_an_unsupported_kind_is_not_called_damaged(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.tif").write_bytes(data)
    problem = finding_of(tmp_path / "x.tif").problem
    assert words in problem
    assert ("damaged" in problem) == ("damaged" in words)


def test_grey_of_16_bits_with_alpha_is_not_called_damaged(tmp_path: Path) -> None:
    size, two = ((256, 3, 1, 1), (257, 3, 1, 1)), ((277, 3, 1, 2), (338, 3, 1, 2))
    (tmp_path / "x.tif").write_bytes(
        tiff_of_entries(*size, (258, 3, 2, 16 | 16 << 16), (262, 3, 1, 1), (273, 3, 1, 8), *two)
    )
    assert "unsupported kind (16 + 16 bits a pixel" in finding_of(tmp_path / "x.tif").problem


def test_a_text_cut_within_a_character_is_recognised() -> None:
    assert looks_like(("é" * 2000).encode()) == looks_like(b"a" + ("é" * 2000).encode()) == "a text file"
