"""Measures each picture without a network: a perceptual hash, a thumbnail, its size, brightness and sharpness. Torch-free.

The hash is the sign of the 64 lowest frequencies of the grey thumbnail, without the mean: it survives other sizes, other
compression and slight changes of brightness. Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash
Functions, 2010, section 3.2.1, with signs in place of the median, so that the hash of the mirror image follows from it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat

from trainer.data.folder.pixels import UnreadableImageError, load, upright_rgb
from trainer.host.limits import usable_cpus
from trainer.host.progress import Progress

HASH_BITS = 64
THUMBNAIL = 48  # side in pixels
_MEASURED_SIDE = 256  # longest side on which sharpness is measured
_CHUNK = 256


class _Measured(NamedTuple):
    thumbnail_YX: NDArray[np.uint8]
    width: int
    height: int
    brightness: float
    contrast: float
    sharpness: float
    red_green: float
    blue_green: float


@dataclass(frozen=True)
class PictureFacts:
    """Facts about N pictures."""

    thumbnails_NYX: NDArray[np.uint8]  # grey, squeezed to a square
    hashes_NB: NDArray[np.int8]  # -1 or 1, HASH_BITS of them
    width_N: NDArray[np.int64]  # pixels, upright, like the height
    height_N: NDArray[np.int64]
    brightness_N: NDArray[np.float64]  # mean grey value, 0 to 255
    contrast_N: NDArray[np.float64]  # standard deviation of the grey values
    sharpness_N: NDArray[np.float64]  # variance of the Laplacian over that of the grey values
    chroma_N2: NDArray[np.float64]  # mean red less mean green, mean blue less mean green

    def of(self, rows: NDArray[np.int64]) -> PictureFacts:
        """Facts about some of the pictures."""
        return PictureFacts(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def measure_files(paths: Sequence[str], progress: Progress) -> tuple[PictureFacts, list[int], list[tuple[str, str]]]:
    """Facts about files, the indices of those that could be read, and the others, each with the reason."""
    found: list[_Measured] = []
    kept: list[int] = []
    lost: list[tuple[str, str]] = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            for index, measured in enumerate(pool.map(_measure_file, chunk), start):
                if isinstance(measured, str):
                    lost.append((paths[index], measured))
                else:
                    found.append(measured)
                    kept.append(index)
            progress("measuring pictures", min(start + _CHUNK, len(paths)) / len(paths))
    return _joined(found), kept, lost


def mirrored(hashes_NB: NDArray[np.int8]) -> NDArray[np.int8]:
    """Hashes of the mirror images: frequencies that are odd along the rows change their sign."""
    odd_B = np.array([column % 2 for _, column in _frequencies()])
    hashes: NDArray[np.int8] = (hashes_NB * (1 - 2 * odd_B)).astype(np.int8)
    return hashes


def hash_thumbnails(thumbnails_NYX: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.int8]:
    """Hashes of grey thumbnails: (N, HASH_BITS), each -1 or 1."""
    rows, columns = zip(*_frequencies(), strict=True)
    basis, hashes_NB = _cosines(), np.empty((len(thumbnails_NYX), HASH_BITS), np.int8)
    for start in range(0, len(thumbnails_NYX), _CHUNK):  # fp32 copies of all would take four times their memory
        spectra_NFG = basis @ thumbnails_NYX[start : start + _CHUNK].astype(np.float32) @ basis.T
        hashes_NB[start : start + _CHUNK] = np.where(spectra_NFG[:, rows, columns] >= 0, 1, -1)
    return hashes_NB


def _measure_file(path: str) -> _Measured | str:
    """Facts about one file, or the reason why it cannot be read."""
    try:
        return load(path, _measure_image)
    except MemoryError:
        return "not enough memory to decode it"
    except UnreadableImageError as error:
        return str(error)


def _measure_image(image: Image.Image) -> _Measured:
    width, height = image.size
    image.draft("RGB", (_MEASURED_SIDE, _MEASURED_SIDE))
    rgb = upright_rgb(image)
    if (width > height) != (rgb.width > rgb.height):  # turned upright
        width, height = height, width
    return _measured(rgb, width, height)


def _measured(rgb: Image.Image, width: int, height: int) -> _Measured:
    grey = rgb.convert("L")
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    grey.thumbnail((_MEASURED_SIDE, _MEASURED_SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    spread = float(values.var())
    red, green, blue = ImageStat.Stat(rgb).mean
    return _Measured(
        thumbnail, width, height, float(values.mean()), spread**0.5, _edges(values) / max(spread, 1.0), red - green,
        blue - green,
    )  # fmt: skip


def _edges(values_YX: NDArray[np.float32]) -> float:
    """Variance of the discrete Laplacian; 0 where a side has fewer than three pixels."""
    if min(values_YX.shape) < 3:
        return 0.0
    middle = values_YX[1:-1, 1:-1]
    around = values_YX[:-2, 1:-1] + values_YX[2:, 1:-1] + values_YX[1:-1, :-2] + values_YX[1:-1, 2:]
    return float((around - 4 * middle).var())


def _joined(found: Sequence[_Measured]) -> PictureFacts:
    thumbnails_NYX = np.array([one.thumbnail_YX for one in found], np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)
    sizes_N2 = np.array([(one.width, one.height) for one in found], np.int64).reshape(-1, 2)
    levels_N3 = np.array([(one.brightness, one.contrast, one.sharpness) for one in found], np.float64).reshape(-1, 3)
    return PictureFacts(
        thumbnails_NYX=thumbnails_NYX, hashes_NB=hash_thumbnails(thumbnails_NYX), width_N=sizes_N2[:, 0],
        height_N=sizes_N2[:, 1], brightness_N=levels_N3[:, 0], contrast_N=levels_N3[:, 1], sharpness_N=levels_N3[:, 2],
        chroma_N2=np.array([(one.red_green, one.blue_green) for one in found], np.float64).reshape(-1, 2),
    )  # fmt: skip


@functools.cache
def _cosines() -> NDArray[np.float32]:
    """The lowest frequencies of the discrete cosine transform (type II), unnormalised: (frequencies, THUMBNAIL)."""
    frequencies, places = np.arange(16)[:, None], np.arange(THUMBNAIL)[None, :]
    cosines: NDArray[np.float32] = np.cos(np.pi / THUMBNAIL * (places + 0.5) * frequencies).astype(np.float32)
    return cosines


@functools.cache
def _frequencies() -> tuple[tuple[int, int], ...]:
    """The lowest frequencies (of the rows, of the columns) but the mean, in the order of their sum."""
    every = sorted((row + column, row, column) for row in range(16) for column in range(16))
    return tuple((row, column) for _, row, column in every[1 : HASH_BITS + 1])
