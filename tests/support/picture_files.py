"""Picture files of known pixels, and how they must be read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.folder.decoder import Decoder, decode_files
from trainer.data.folder.layout import ImageFile
from trainer.data.folder.pixels import load, upright_rgb
from trainer.data.folder.scan import Finding, scan
from trainer.data.image_folder import read_images

SIDE, LONG_SIDE = 16, 20
SHAPE = (SIDE, LONG_SIDE)
NOISE = np.random.default_rng(0)
RGB = NOISE.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
GREY, ALPHA = RGB[..., 0], RGB[..., 1]
WIDE = NOISE.integers(0, 65536, SHAPE).astype(np.uint16)
LONG = NOISE.integers(0, 2**31 - 1, SHAPE).astype(np.int32)
DECODER = Decoder(image_size=SIDE, crop_pct=1.0)


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
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
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


def tiff_of_entries(*entries: tuple[int, int, int, int]) -> bytes:
    """A TIFF file with one directory and no pixels; an entry is tag, type, count and value."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI8sH", b"II", 42, 16, bytes(8), len(entries)) + directory + bytes(4)
