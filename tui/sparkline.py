"""A curve in one row, for small terminals. Pure."""

from __future__ import annotations

import math

import numpy as np

from tui.decimate import Pyramid
from tui.glyphs import Glyphs


def sparkline(pyramid: Pyramid, left: float, right: float, width: int, glyphs: Glyphs) -> str:
    """Draw a series into `width` cells, each as high as the middle of its column's lowest and highest value.

    Args:
        pyramid: Of the series.
        left: Position at the left edge.
        right: Position at the right edge.
        width: Cells.
        glyphs: Levels, lowest first.
    """
    if width <= 0 or not len(pyramid) or right <= left:
        return " " * max(width, 0)
    edges = np.linspace(left, right, width + 1)
    edges[-1] = np.nextafter(right, np.inf)
    lows, highs = pyramid.columns(edges)
    middle = (lows + highs) / 2
    finite = middle[~np.isnan(middle)]
    if not len(finite):
        return " " * width
    low, high = float(finite.min()), float(finite.max())
    levels = len(glyphs.ticks)
    span = high - low
    text = ""
    for value in middle:
        if math.isnan(value):
            text += " "
        else:
            text += glyphs.ticks[min(int((value - low) / span * levels), levels - 1) if span > 0 else levels // 2]
    return text
