"""Explains why a file cannot be read as a picture, from its first bytes."""

from __future__ import annotations

import codecs
import io
import re
from contextlib import suppress

from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

_HEAD = 1024  # bytes examined at the start of a file
_UNKNOWN = "an unknown kind of file"
_HEIC, _AVIF, _JXL = "a HEIC picture (convert it)", "an AVIF picture (convert it)", "a JPEG XL picture (convert it)"
_NUMBERS = {1: "unsigned", 2: "signed", 3: "floating-point"}  # TIFF tag SampleFormat
_RAW_PHOTOMETRIC = (32803, 34892)
_RAW, _TIFF = "a camera raw file (convert it)", "a damaged TIFF or a camera raw file"
_VIDEO, _SOUND, _OFFICE = "a video", "an audio file", "an Office document"
_MARKS = (
    (0, b"version https://git-lfs.github.com/", "a git-LFS pointer (fetch the file itself: git lfs pull)"),
    (0, b"/annex/objects/", "a git-annex pointer (fetch the file itself: git annex get)"),
    (4, b"ftypavi", _AVIF), (4, b"ftyphe", _HEIC), (4, b"ftypmif1", _HEIC), (4, b"ftypmsf1", _HEIC), (4, b"ftypcrx ", _RAW),
    (4, b"ftyp", _VIDEO), (4, b"moov", _VIDEO), (0, b"\x1a\x45\xdf\xa3", _VIDEO), (8, b"AVI ", _VIDEO), (0, b"FLV", _VIDEO),
    (0, b"\0\0\x01\xba", _VIDEO), (0, b"OggS", _SOUND), (0, b"ID3", _SOUND), (8, b"WAVE", _SOUND), (4, b"JXL \r\n", _JXL),
    (0, b"\xff\x0a", _JXL), (0, b"\xff\xd8", "a damaged JPEG file"), (0, b"\x89PNG", "a damaged PNG file"),
    (8, b"WEBP", "a damaged WebP file"), (0, b"GIF8", "a damaged GIF file"), (0, b"FUJIFILM", _RAW),
    (0, b"BM", "a damaged BMP file"), (0, b"II*\0", _TIFF), (0, b"MM\0*", _TIFF), (0, b"II+\0", _TIFF),
    (0, b"MM\0+", "a big-endian BigTIFF file (convert it)"), (0, b"%PDF", "a PDF document"),
    (0, b"8BPS", "a Photoshop document (convert it)"),
    (0, b"PK\x03\x04", "a ZIP archive or " + _OFFICE), (0, b"\xd0\xcf\x11\xe0", _OFFICE), (0, b"{\\rtf", _OFFICE),
    (0, b"\x1f\x8b", "a gzip archive"), (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"Rar!", "a RAR archive"),
    (0, b"\x93NUMPY", "a NumPy array"), (0, b"\x89HDF", "an HDF5 file"), (0, b"L\0\0\0\x01\x14\x02", "a Windows shortcut"),
    (128, b"DICM", "a DICOM picture (convert it)"), (0, b"\0\x05\x16\x07", "side data of macOS (AppleDouble)"),
)  # fmt: skip
"""Offset, bytes and the kind of file that they identify; the first match counts."""
_WORDS = (
    (rb"<(!doctype html|html|head|body)", "an HTML page (a failed download)"),
    (rb"(<\?xml.*)?<svg", "an SVG drawing (convert it)"), (rb"<\?xml", "an XML file"), (rb"[{\[]", "a JSON file"),
)  # fmt: skip
"""Patterns at the start of text files."""


def looks_like(data: bytes) -> str:
    """Kind of file by its first bytes, as a noun with its article."""
    head = data[:_HEAD]
    for offset, mark, name in _MARKS:
        if head.startswith(mark, offset):
            return name
    if not head.strip(b"\0"):
        return "a file of zeros (an interrupted copy or download)"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name in _WORDS:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return name
    try:
        words = codecs.getincrementaldecoder("utf-8")().decode(head)  # the end may be half a character
    except UnicodeDecodeError:
        return _UNKNOWN
    return "a text file" if all(c.isprintable() or c.isspace() for c in words) else _UNKNOWN


def reason_of(error: Exception, data: bytes | None) -> str:
    """Reason why a file cannot be used, without paths and addresses. `data` is its bytes; None if unavailable."""
    if data is None:
        return str(getattr(error, "strerror", None) or error)
    if not data:
        return "the file is empty"
    if isinstance(error, Image.DecompressionBombError):
        return str(error).partition(", could be")[0] + "; use a smaller picture"
    if isinstance(error, UnidentifiedImageError):
        return _unsupported(data) or f"not a readable image; it looks like {looks_like(data)}"
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>", "the file", str(error)) or type(error).__name__
    return f"its pixels are damaged ({text})" if text.startswith("decoder error") else text


def _unsupported(data: bytes) -> str:
    """Feature of a JPEG or TIFF file that Pillow does not support; empty for other files and for damaged ones."""
    with suppress(Exception):  # damage raises many types of exceptions
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0")):
            return _unsupported_tiff(data)
        if data.startswith(b"\xff\xd8"):
            return _unsupported_jpeg(data)
    return ""


def _unsupported_jpeg(data: bytes) -> str:
    try:
        JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    except SyntaxError as error:
        if str(error).startswith("cannot handle"):
            return f"a JPEG file of an unsupported kind ({error}); convert it"
    return ""


def _unsupported_tiff(data: bytes) -> str:
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except SyntaxError as error:
        if not (str(error).startswith("unknown") or isinstance(error.__cause__, KeyError)):
            return ""
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    if not {TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS} & tags.keys():
        return ""  # truncated
    white = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    if white in _RAW_PHOTOMETRIC:
        return f"it is {_RAW}"
    bits = " + ".join(map(str, tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    numbers = _NUMBERS.get(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "unknown")
    return (
        f"a TIFF file of an unsupported kind ({bits} bits a pixel, {numbers} values, "
        f"{'big' if tags.prefix == b'MM' else 'little'}-endian, {'0 is white, ' if white == 0 else ''}compression "
        f"{tags.get(TiffImagePlugin.COMPRESSION, 1)}); convert it, for example to PNG"
    )
