"""Class activation maps over pictures: which places speak for a class. Torch-free.

A map is `heat`: uint8, 0 to 255, of a few places in each direction (`trainer.model.activation_map`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLD, _WARM, _HOT = (40, 60, 200), (255, 120, 0), (255, 240, 60)
_OPACITY = 0.6  # of the hottest places
_DIMMED = 0.25  # brightness of the coldest places without colours


def coloured(pixels_HWC: NDArray[np.uint8], heat_YX: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with hot places in yellow and orange, and the others darker and bluish."""
    heat = _enlarged(heat_YX, pixels_HWC)[..., None]
    scale = np.array([_COLD, _WARM, _HOT], np.float32)
    low, share = np.divmod(np.minimum(heat * 2, np.float32(1.999)), 1)
    below = low[..., 0].astype(int)
    colours = scale[below] * (1 - share) + scale[below + 1] * share
    opacity = _OPACITY * np.maximum(heat, 0.3)
    return _as_pixels(pixels_HWC * (1 - opacity) + colours * opacity)


def spotlit(pixels_HWC: NDArray[np.uint8], heat_YX: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with cold places darkened, which shows without colours."""
    return _as_pixels(pixels_HWC * (_DIMMED + (1 - _DIMMED) * _enlarged(heat_YX, pixels_HWC)[..., None]))


def _enlarged(heat_YX: NDArray[np.uint8], pixels_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Heat of each pixel, 0 to 1: (H, W)."""
    height, width = pixels_HWC.shape[:2]
    image = Image.fromarray(heat_YX.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    heat: NDArray[np.float32] = np.asarray(image, np.float32) / np.float32(255)
    return heat


def _as_pixels(values_HWC: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = values_HWC.round().clip(0, 255).astype(np.uint8)
    return pixels
