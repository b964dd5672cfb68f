"""Every reader gives the same pixels as numpy, or as plain Pillow for lossy formats."""

from __future__ import annotations

import gc
import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.support.png import chunk, png
from trainer.data.folder.decoder import Decoder, decode_files
from trainer.data.folder.layout import ImageFile
from trainer.data.folder.pixels import UnreadableImageError, load, upright_rgb
from trainer.data.folder.scan import Finding, scan
from trainer.data.image_folder import read_images
from trainer.host.file_kinds import looks_like

SIDE, LONG_SIDE = 16, 20
SHAPE = (SIDE, LONG_SIDE)
NOISE = np.random.default_rng(0)
RGB = NOISE.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
GREY, ALPHA = RGB[..., 0], RGB[..., 1]
WIDE = NOISE.integers(0, 65536, SHAPE).astype(np.uint16)
LONG = NOISE.integers(0, 2**31 - 1, SHAPE).astype(np.int32)
DECODER = Decoder(image_size=SIDE, crop_pct=1.0)
TRANSPOSITIONS = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""Transposition of the upright image for each EXIF orientation."""


def over_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[Any]:
    share = alpha[..., None] / 255.0
    return rgb * share + 255 * (1 - share)


def three(grey: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(grey[..., None], 3, axis=2)


def centre_crop(pixels: NDArray[Any]) -> NDArray[Any]:
    """The centre crop of the decoder."""
    return pixels[:, (LONG_SIDE - SIDE) // 2 :][:, :SIDE]


def read_by_pillow(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def example() -> Callable[[Path], Image.Image]:
    """The reader of docs/export.md."""
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("session = ")[0], names)  # noqa: S102 - our own page
    reader: Callable[[Path], Image.Image] = names["upright_rgb"]
    return reader


def finding_of(path: Path) -> Finding:
    """The finding of a survey without stored findings."""
    stat = path.stat()
    file = ImageFile(path, 0, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return scan([file], kept_at=Path("/proc/nowhere"), what="", progress=lambda *_: None)[0]


def assert_read_as(path: Path, wanted: NDArray[Any], *, documented: bool = True) -> None:
    """Assert that all readers give these pixels; that of the documentation only with `documented`."""
    whole = {"reader": np.asarray(load(path, upright_rgb))}
    if documented:
        whole["docs/export.md"] = np.asarray(example()(path))
    for reader, pixels in whole.items():
        assert pixels.shape == (*SHAPE, 3), reader
        assert np.abs(pixels.astype(float) - wanted).max() <= 0.51, reader
    cropped = {
        "training": read_images(DECODER, [str(path)]).pixels_NHWC.numpy(),
        "predict and eval": decode_files(DECODER, [str(path)])[0],
    }
    for reader, pixels in cropped.items():
        assert pixels.shape == (1, SIDE, SIDE, 3), reader
        assert np.abs(pixels[0].astype(float) - centre_crop(wanted)).max() <= 0.51, reader
    finding = finding_of(path)
    assert (finding.problem, finding.width, finding.height) == ("", LONG_SIDE, SIDE)


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


def tiff_of_entries(*entries: tuple[int, int, int, int]) -> bytes:
    """A TIFF file with one directory and no pixels; an entry is tag, type, count and value."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI8sH", b"II", 42, 16, bytes(8), len(entries)) + directory + bytes(4)


def test_grey_of_16_bits_with_alpha_is_not_called_damaged(tmp_path: Path) -> None:
    size, two = ((256, 3, 1, 1), (257, 3, 1, 1)), ((277, 3, 1, 2), (338, 3, 1, 2))
    (tmp_path / "x.tif").write_bytes(
        tiff_of_entries(*size, (258, 3, 2, 16 | 16 << 16), (262, 3, 1, 1), (273, 3, 1, 8), *two)
    )
    assert "unsupported kind (16 + 16 bits a pixel" in finding_of(tmp_path / "x.tif").problem


def test_a_text_cut_within_a_character_is_recognised() -> None:
    assert looks_like(("é" * 2000).encode()) == looks_like(b"a" + ("é" * 2000).encode()) == "a text file"


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
