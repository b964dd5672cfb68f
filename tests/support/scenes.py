"""Synthetic photographs: smooth random shapes in colour, each unlike the others."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A picture of a few random shapes on a gradient, with noise."""
    drawn = np.random.default_rng(seed)
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    colours = drawn.uniform(30, 220, (3, 3))
    pixels = colours[0] + across[..., None] * (colours[1] - colours[0]) + down[..., None] * (colours[2] - colours[0])
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = drawn.uniform(-0.2, 0.9, 2) * (width, height)
        box = (left, top, left + drawn.uniform(0.1, 0.6) * width, top + drawn.uniform(0.1, 0.6) * height)
        (draw.ellipse if drawn.random() < 0.5 else draw.rectangle)(box, fill=tuple(drawn.integers(0, 256, 3).tolist()))
    noisy = np.asarray(image) + drawn.normal(0, 4, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
