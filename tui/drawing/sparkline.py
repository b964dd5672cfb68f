"""A curve in one row, for small terminals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tui.drawing.glyphs import Glyphs
from tui.drawing.pyramid import Pyramid, column_edges


def sparkline(pyramid: Pyramid, left: float, right: float, width: int, glyphs: Glyphs) -> str:
    """Draw a series into `width` cells, each at the midpoint of the lowest and highest value in its column."""
    if width <= 0 or not len(pyramid) or right <= left:
        return " " * max(width, 0)
    lows, highs = pyramid.columns(column_edges(left, right, width))
    return as_ticks(((lows + highs) / 2).tolist(), glyphs)


def as_ticks(values: Sequence[float], glyphs: Glyphs) -> str:
    """One character per value, scaled from the lowest to the highest; a blank for NaN."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_tick(value, low, high, glyphs.ticks) for value in values)


def histogram(counts: Sequence[int], width: int, glyphs: Glyphs) -> str:
    """A histogram in one row, blank for 0; bins are joined evenly, as few as needed to fit into `width` cells."""
    sizes = (size for size in range(1, len(counts)) if len(counts) % size == 0 and len(counts) // size <= width)
    joined = next(sizes, 1)
    bins = [sum(counts[begin : begin + joined]) for begin in range(0, len(counts), joined)]
    highest = max(bins, default=0)
    return "".join(_tick(count, 0, highest, glyphs.ticks) if count else " " for count in bins)


def _tick(value: float, low: float, high: float, ticks: str) -> str:
    if not math.isfinite(value):
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return ticks[min(int(share * len(ticks)), len(ticks) - 1)]
