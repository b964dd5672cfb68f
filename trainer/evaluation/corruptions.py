"""Corrupted images, to measure robustness. Torch-free.

The kinds, but not the strengths, are those of Hendrycks and Dietterich, arXiv:1903.12261. They are applied to the network's
input, at its size, so that the strengths mean the same for every image.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_Damage = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


def _noise(sigma: float) -> _Damage:
    def damaged(pixels_HWC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        noise = np.random.default_rng(seed).normal(0.0, sigma, pixels_HWC.shape)
        noisy: NDArray[np.uint8] = (pixels_HWC + noise).round().clip(0, 255).astype(np.uint8)
        return noisy

    return damaged


def _blur(share: float) -> _Damage:
    def damaged(pixels_HWC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        radius = share * pixels_HWC.shape[0]
        return np.array(Image.fromarray(pixels_HWC).filter(ImageFilter.GaussianBlur(radius)))

    return damaged


def _jpeg(quality: int) -> _Damage:
    def damaged(pixels_HWC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "JPEG", quality=quality)
        return np.array(Image.open(file))

    return damaged


CORRUPTIONS: dict[str, dict[str, _Damage]] = {
    "noise": {f"sigma {sigma:g} of 255": _noise(sigma) for sigma in (10.0, 20.0, 40.0)},
    "blur": {f"radius {share:.1%} of the side": _blur(share) for share in (0.01, 0.02, 0.04)},
    "JPEG": {f"quality {quality}": _jpeg(quality) for quality in (50, 20, 10)},
}
"""Corruptions by kind and strength, the mildest first."""


def damaged_batch(damage: _Damage, pixels_NHWC: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
    """Corrupt a batch, reproducibly: the number of the first image seeds its noise."""
    return np.stack([damage(pixels, first + index) for index, pixels in enumerate(pixels_NHWC)])
