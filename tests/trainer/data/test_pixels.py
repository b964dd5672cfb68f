"""Every reader gives the same pixels as numpy, or as plain Pillow for lossy formats."""

from __future__ import annotations

import gc
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from tests.support.picture_files import (
    ALPHA,
    DECODER,
    GREY,
    LONG,
    NOISE,
    RGB,
    SHAPE,
    SIDE,
    WIDE,
    assert_read_as,
    centre_crop,
    example,
    finding_of,
    over_white,
    read_by_pillow,
    three,
    tiff_of_entries,
)
from tests.support.png import chunk, png
from trainer.data.folder.decoder import Decoder
from trainer.data.folder.pixels import UnreadableImageError, load, upright_rgb

TRANSPOSITIONS = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""Transposition of the upright image for each EXIF orientation."""

PICTURES = {
    "1": (Image.fromarray(GREY).point(lambda value: 255 * (value > 127), "1"), three(255 * (GREY > 127))),
    "L": (Image.fromarray(GREY), three(GREY)),
    "RGB": (Image.fromarray(RGB), RGB),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), over_white(three(GREY), ALPHA)),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA)),
    "I;16": (Image.fromarray(WIDE), three(WIDE / 257)),
    "I": (Image.fromarray(LONG), three(LONG * (255 / (2**31 - 1)))),
}

PALETTE = NOISE.integers(0, 256, (256, 3), dtype=np.uint8)

INDEXED = Image.fromarray(GREY, "L")
INDEXED.putpalette(PALETTE.tobytes())

PICTURES["P"] = (INDEXED, PALETTE[GREY])

PICTURES["CMYK"] = (Image.fromarray(RGB).convert("CMYK"), RGB)

PICTURES["PA"] = (INDEXED.convert("PA"), PALETTE[GREY])

LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("1 L LA P RGB RGBA I;16", {}), "apng": ("RGB", {"format": "PNG"}), "bmp": ("1 L P RGB", {}), "dib": ("L RGB", {}),
    "gif": ("L P", {}), "webp": ("RGB RGBA", {"lossless": True, "exact": True}), "ppm": ("L RGB", {}), "pgm": ("L I;16", {}),
    "pbm": ("1", {}), "tif": ("1 L LA P PA RGB RGBA CMYK I;16 I", {}), "tiff": ("L RGB RGBA I;16", {"compression": "tiff_lzw"}),
}  # fmt: skip

ORIENTED = ("png", "webp", "tif", "tiff")


@pytest.mark.parametrize(
    ("ending", "mode"), [(ending, mode) for ending, (modes, _) in LOSSLESS.items() for mode in modes.split()]
)
def test_every_reader_gives_the_written_pixels(tmp_path: Path, ending: str, mode: str) -> None:
    picture, wanted = PICTURES[mode]
    for tag, turn in TRANSPOSITIONS.items() if ending in ORIENTED else [(1, None)]:
        exif = Image.Exif()
        exif[0x0112] = tag
        more = LOSSLESS[ending][1] | ({"exif": exif} if ending in ORIENTED else {})
        path = tmp_path / f"{tag}.{ending}"
        (picture if turn is None else picture.transpose(turn)).save(path, **more)
        assert_read_as(path, wanted)


@pytest.mark.parametrize("ending", ["jpg", "jfif", "jpe", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_lossy_formats_are_read_as_by_pillow(tmp_path: Path, ending: str, mode: str) -> None:
    picture = Image.fromarray(RGB).convert(mode if ending != "webp" else "RGB")
    kind = "WEBP" if ending == "webp" else "JPEG"
    picture.save(tmp_path / f"plain.{ending}", kind)
    assert_read_as(tmp_path / f"plain.{ending}", read_by_pillow(tmp_path / f"plain.{ending}"))
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / f"turned.{ending}", kind, exif=exif)
    assert_read_as(tmp_path / f"turned.{ending}", read_by_pillow(tmp_path / f"turned.{ending}")[::-1, ::-1])


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_transparent_colour_is_read_at_the_files_depth(tmp_path: Path, bits: int) -> None:
    grey = NOISE.integers(1, 2**bits, SHAPE).astype(np.uint16 if bits == 16 else np.uint8)
    grey[:4] = 2**bits - 2
    scaled = three(grey * (255 / (2**bits - 1)))
    (tmp_path / "unused.png").write_bytes(png(grey, 0, bits, chunk(b"tRNS", b"\0\0")))
    assert_read_as(tmp_path / "unused.png", scaled)
    (tmp_path / "used.png").write_bytes(png(grey, 0, bits, chunk(b"tRNS", struct.pack(">H", 2**bits - 2))))
    assert_read_as(tmp_path / "used.png", np.where(three(grey == 2**bits - 2), 255, scaled))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_transparent_colour_of_48_bits_hides_only_that_colour(tmp_path: Path, orientation: int) -> None:
    deep = RGB.astype(np.uint16) << 8 | NOISE.integers(0, 256, RGB.shape, dtype=np.uint16)
    deep[0, 0], deep[0, 1] = deep[1, 1], deep[1, 1] ^ 1
    shown = (deep >> 8).astype(np.uint8)
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + struct.pack("<HHI", orientation, 0, 0))
    held = deep if orientation == 1 else np.rot90(deep)
    for name, key in (("unused", deep[1, 1] ^ 257), ("used", deep[1, 1])):
        (tmp_path / f"{name}.png").write_bytes(
            png(held, 2, 16, chunk(b"tRNS", struct.pack(">3H", *map(int, key))) + turned)
        )
        wanted = np.where((deep == key).all(2)[..., None], 255, shown)
        assert_read_as(tmp_path / f"{name}.png", wanted, documented=False)


def tiff(path: Path, pixels: NDArray[Any], tags: dict[int, object] | None = None, kind: str | None = None) -> Path:
    """A TIFF file with additional tags; `kind` is its sample format where Pillow cannot write that."""
    Image.fromarray(pixels).save(path, tiffinfo=tags or {})
    return with_tag(path, 339, {"unsigned": 1, "signed": 2}[kind]) if kind else path


def with_tag(path: Path, tag: int, value: int) -> Path:
    """A TIFF file with another value of an existing tag."""
    data = bytearray(path.read_bytes())
    order = "<" if data.startswith(b"II") else ">"
    at = data.index(struct.pack(f"{order}HHI", tag, 3, 1)) + 8
    data[at : at + 2] = struct.pack(f"{order}H", value)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("pixels", "tags", "kind", "white"),
    [
        (WIDE, None, None, 65535),
        (WIDE // 16, {281: 4095}, None, 4095),
        (WIDE // 64, {281: 1023}, None, 1023),
        (WIDE // 256, {281: 255}, None, 255),
        (WIDE, {281: 40000}, None, 65535),
        (WIDE // 16, {281: 65535}, None, 65535),
        (WIDE // 16, None, None, 65535),
        (LONG, None, None, 2**31 - 1),
        (LONG // 2**19, {281: 4095}, None, 4095),
        (LONG, None, "unsigned", 2**32 - 1),
    ],
)
def test_the_scale_depends_on_the_file_format_not_on_the_pixels(
    tmp_path: Path, pixels: NDArray[Any], tags: dict[int, object] | None, kind: str | None, white: int
) -> None:
    wanted = pixels.astype(np.float64) * (255 / white)
    path = tiff(tmp_path / "one.tif", pixels, tags, kind)
    assert_read_as(
        path, three(wanted.clip(0, 255)), documented=white in (65535, 2**31 - 1) and (tags or {}).get(281) != 4095
    )
    half = pixels // 2
    half[0, 0] = pixels.max()
    darker = np.asarray(load(tiff(tmp_path / "half.tif", half, tags, kind), upright_rgb))
    assert np.abs(darker[1:, :, 0] - wanted[1:] / 2).max() <= 1.01, "one bright pixel does not change the others"


def test_signed_and_unsigned_integers_have_their_own_scales(tmp_path: Path) -> None:
    byte = tiff(tmp_path / "byte.tif", GREY, {339: 2})
    assert_read_as(byte, three(GREY.view(np.int8).clip(0) * (255 / 127)), documented=False)
    assert (Decoder(image_size=SIDE, crop_pct=1.0, reading=1)(byte)[..., 0] == centre_crop(GREY)).all()
    high = LONG.view(np.uint32) + np.uint32(2**31)
    unsigned = tiff(tmp_path / "unsigned.tif", high.view(np.int32), kind="unsigned")
    assert_read_as(unsigned, three(high * (255 / (2**32 - 1))), documented=False)
    negative = tiff(tmp_path / "negative.tif", -LONG)
    assert_read_as(negative, np.zeros((*SHAPE, 3)))


def test_tiffs_that_pillow_cannot_write_are_read_by_every_reader(tmp_path: Path) -> None:
    assert_read_as(with_tag(tiff(tmp_path / "inverted.tif", WIDE), 262, 0), three(255 - WIDE / 257))
    multiplied = np.minimum(GREY, ALPHA)
    Image.merge("LA", [Image.fromarray(multiplied), Image.fromarray(ALPHA)]).save(tmp_path / "multiplied.tif")
    with_tag(tmp_path / "multiplied.tif", 338, 1)
    whole = np.asarray(load(tmp_path / "multiplied.tif", upright_rgb)).astype(float)
    exact = three(multiplied) + (255.0 - ALPHA)[..., None]
    assert np.abs(whole - exact).max() <= 2, "by the definition of premultiplied alpha"
    assert_read_as(tmp_path / "multiplied.tif", whole)


def test_floats_without_a_known_scale_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros(SHAPE, np.float32)).save(tmp_path / "float.tif")
    for read in (DECODER, example()):
        with pytest.raises((UnreadableImageError, ValueError), match="no known scale"):
            read(tmp_path / "float.tif")
    assert "no known scale" in finding_of(tmp_path / "float.tif").problem


def test_large_images_are_read_and_decoder_warnings_are_not_printed(tmp_path: Path) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff"
    Image.fromarray(RGB).save(tmp_path / "exif.jpg", exif=exif)
    indexed = INDEXED.copy()
    indexed.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    entries = ((256, 3, 1, 1), (257, 3, 1, 1), (277, 3, 1, 99))  # for which Pillow logs an error
    (tmp_path / "samples.tif").write_bytes(tiff_of_entries(*entries))
    code = (
        "import sys; from trainer.data.folder.decoder import Decoder, decode_files\n"
        "print(decode_files(Decoder(image_size=8, crop_pct=1.0), sys.argv[1:])[1:])"
    )
    names = ["exif.jpg", "huge.png", "large.png", "palette.png", "samples.tif"]
    result = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    assert "[0, 2, 3]" in result.stdout
    assert "exceeds limit" in result.stdout
    assert "attack" not in result.stdout


def test_reading_version_1_gives_the_same_pixels(tmp_path: Path) -> None:
    """Older models were trained on such pixels."""
    older = Decoder.described_by({"size": SIDE})
    assert older.reading == 1
    Image.fromarray(WIDE // 256).save(tmp_path / "dim.png")
    assert (older(tmp_path / "dim.png")[..., 0] == centre_crop(WIDE // 256)).all()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n 10\nno hex\n")
    Image.fromarray(RGB).save(tmp_path / "raw.png", pnginfo=info)
    with pytest.raises(UnreadableImageError):
        older(tmp_path / "raw.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(RGB).save(tmp_path / "turned.tif", exif=exif)
    assert (older(tmp_path / "turned.tif") == centre_crop(RGB)).all(), "rotated twice"
    assert Decoder.described_by({"size": SIDE} | DECODER.description) == DECODER
    with pytest.raises(ValueError, match="newer than this version"):
        Decoder.described_by({"size": SIDE, "reading": 99})


def test_a_file_that_cannot_be_decoded_is_freed_at_once(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()[:-30]
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(UnreadableImageError):
            load(content, upright_rgb)
        assert gc.collect() == 0
    finally:
        gc.enable()
