"""The lowest and highest value under each column of a plot, at a cost of O(columns) however long the series is.

Blocks of 16, 256, ... points keep their minimum and maximum, so no spike is ever lost, at any width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainer.run.series import Series, Smoothed

_FANOUT = 16
_POINTS_A_COLUMN = 4
"""A level is coarse enough when a column still spans this many of its blocks."""


class Pyramid:
    """Minimum and maximum of a growing series on several levels. Follows one series; used by the drawing thread."""

    def __init__(self) -> None:
        self._generation = -1
        self._count = 0
        self._x: NDArray[np.float64] = np.empty(1024)
        self._lows: list[NDArray[np.float64]] = [np.empty(1024)]
        self._highs: list[NDArray[np.float64]] = [np.empty(1024)]
        self.not_finite: list[float] = []

    def __len__(self) -> int:
        return self._count

    def follow(self, series: Series | Smoothed) -> None:
        """Take in the points that are new; start again when some were dropped."""
        if series.generation != self._generation:
            self.__init__()  # type: ignore[misc]
            self._generation = series.generation
        new = len(series) - self._count
        if new <= 0:
            return
        start, self._count = self._count, len(series)
        values = np.array(series.y[start:])
        positions = np.array(series.x[start:])
        finite = np.isfinite(values)
        self.not_finite += positions[~finite].tolist()
        self._x = _store(self._x, start, positions)
        # A point that is not finite is neutral in minima and maxima; it is marked apart from the line.
        self._lows[0] = _store(self._lows[0], start, np.where(finite, values, np.inf))
        self._highs[0] = _store(self._highs[0], start, np.where(finite, values, -np.inf))
        self._raise_levels(start)

    def columns(self, edges: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest value of each column.

        Args:
            edges: Rising positions (columns + 1); a column holds the points from its left edge up to its right one.

        Returns:
            Two arrays (columns); NaN where a column holds no finite point.
        """
        bounds = np.searchsorted(self._x[: self._count], edges)
        level, size = 0, 1
        span = (int(bounds[-1]) - int(bounds[0])) / max(len(edges) - 1, 1)
        while level + 1 < len(self._lows) and span >= size * _FANOUT * _POINTS_A_COLUMN:
            level, size = level + 1, size * _FANOUT
        blocks = -(-self._count // size)
        starts = bounds[:-1] // size
        ends = np.minimum(-(-bounds[1:] // size), blocks)
        lows = _reduce(np.minimum, self._lows[level][:blocks], starts, ends, np.inf)
        highs = _reduce(np.maximum, self._highs[level][:blocks], starts, ends, -np.inf)
        empty = (bounds[:-1] == bounds[1:]) | ~np.isfinite(lows)
        return np.where(empty, np.nan, lows), np.where(empty, np.nan, highs)

    def last(self, edges: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The newest value of each column, as its lowest and highest: what a smoothed curve is drawn from."""
        bounds = np.searchsorted(self._x[: self._count], edges)
        newest = self._lows[0][np.maximum(bounds[1:] - 1, 0)]
        values = np.where((bounds[:-1] == bounds[1:]) | ~np.isfinite(newest), np.nan, newest)
        return values, values

    def extent(self, left: float, right: float) -> tuple[float, float] | None:
        """Lowest and highest finite value between two positions; None when there is none."""
        lows, highs = self.columns(np.array([left, np.nextafter(right, np.inf)]))
        return None if np.isnan(lows[0]) else (float(lows[0]), float(highs[0]))

    def _raise_levels(self, start: int) -> None:
        level = 0
        while self._count > _FANOUT ** (level + 1):
            if len(self._lows) == level + 1:
                self._lows.append(np.empty(64))
                self._highs.append(np.empty(64))
                start = 0
            first = start // _FANOUT ** (level + 1)
            below = -(-self._count // _FANOUT**level)
            for arrays, reduce, neutral in ((self._lows, np.minimum, np.inf), (self._highs, np.maximum, -np.inf)):
                part = arrays[level][first * _FANOUT : below]
                padded = np.full(-(-len(part) // _FANOUT) * _FANOUT, neutral)
                padded[: len(part)] = part
                arrays[level + 1] = _store(arrays[level + 1], first, reduce.reduce(padded.reshape(-1, _FANOUT), axis=1))
            level += 1


def _store(array: NDArray[np.float64], start: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Write values from a place on, in a larger array when there is no room."""
    needed = start + len(values)
    if needed > len(array):
        larger = np.empty(max(needed, 2 * len(array)))
        larger[:start] = array[:start]
        array = larger
    array[start:needed] = values
    return array


def _reduce(
    reduce: np.ufunc, values: NDArray[np.float64], starts: NDArray[np.int64], ends: NDArray[np.int64], neutral: float
) -> NDArray[np.float64]:
    """Minimum or maximum of values[start:end] for each pair."""
    # reduceat takes pairs of bounds as one list and needs each index inside; the appended neutral value is that room.
    padded = np.append(values, neutral)
    pairs = np.empty(2 * len(starts), dtype=np.int64)
    pairs[0::2], pairs[1::2] = starts, ends
    result: NDArray[np.float64] = reduce.reduceat(padded, np.minimum(pairs, len(values)))[0::2]
    return np.where(starts < ends, result, neutral)
