"""Minimum and maximum per column of a plot in O(columns), by blocks of 16, 256, ... points: no spike is lost at any width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.run.view.series import Series, Smoothed

Floats = NDArray[np.float64]

_FANOUT = 16
_BLOCKS_PER_COLUMN = 4  # a level is coarse enough if a column still spans this many of its blocks
_SIDES = ((np.minimum, np.inf), (np.maximum, -np.inf))  # reduction of either bound, and the value that never matters
_CHUNK = 2**16  # points added at a time: whole blocks of some levels, and little memory besides the series itself


def column_edges(left: float, right: float, columns: int) -> Floats:
    """Edges of equally wide columns, for `Pyramid`; the last includes the point at `right`."""
    edges = np.linspace(left, right, columns + 1)
    edges[-1] = np.nextafter(right, np.inf)
    return edges


class Pyramid:
    """Minimum and maximum of a growing series on several levels. Follows one series; used by the drawing thread.

    The lowest level is the series itself. No view of its arrays is kept, since an array with a view cannot grow.
    """

    def __init__(self) -> None:
        self._series: Series | Smoothed = Series()
        self._generation = -1
        self._count = 0
        self._levels: list[list[Floats]] = []  # minima and maxima of the blocks of each level
        self.not_finite: list[float] = []

    @classmethod
    def of(cls, series: Series | Smoothed) -> Pyramid:
        """The pyramid of a series as it is now."""
        pyramid = cls()
        pyramid.follow(series)
        return pyramid

    @classmethod
    def of_points(cls, points: Sequence[tuple[float, float]]) -> Pyramid:
        """The pyramid of points with rising positions."""
        series = Series()
        series.extend([x for x, _ in points], [y for _, y in points])
        return cls.of(series)

    def __len__(self) -> int:
        return self._count

    def follow(self, series: Series | Smoothed) -> None:
        """Add the new points; start again if some were dropped."""
        if series.generation != self._generation:
            self.__init__()  # type: ignore[misc]
            self._generation = series.generation
        self._series = series
        total, values = len(series), series.y
        while self._count < total:
            start, self._count = self._count, min(self._count - self._count % _CHUNK + _CHUNK, total)
            finite = np.isfinite(np.frombuffer(values)[start : self._count])
            if not finite.all():
                self.not_finite += np.frombuffer(series.x)[start : self._count][~finite].tolist()
            self._raise_levels(start)

    def columns(self, edges: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest value from each rising edge up to the next one, excluded; NaN where there is no finite point."""
        bounds = self._bounds(edges)
        level, size = 0, 1
        span = (int(bounds[-1]) - int(bounds[0])) / max(len(edges) - 1, 1)
        while level < len(self._levels) and span >= size * _FANOUT * _BLOCKS_PER_COLUMN:
            level, size = level + 1, size * _FANOUT
        blocks = -(-self._count // size)
        starts = bounds[:-1] // size
        ends = np.minimum(-(-bounds[1:] // size), blocks)
        first, last = int(starts[0]), int(ends[-1])
        lows, highs = (
            _reduce(reduce, self._blocks(side, level, first, last), starts - first, ends - first, neutral)
            for side, (reduce, neutral) in enumerate(_SIDES)
        )
        empty = (bounds[:-1] == bounds[1:]) | ~np.isfinite(lows)
        return np.where(empty, np.nan, lows), np.where(empty, np.nan, highs)

    def last(self, edges: Floats) -> tuple[Floats, Floats]:
        """The newest value of each column, as both minimum and maximum: for drawing a smoothed curve."""
        bounds = self._bounds(edges)
        if not self._count:
            return (nothing := np.full(len(edges) - 1, np.nan)), nothing
        newest = np.frombuffer(self._series.y)[np.maximum(bounds[1:] - 1, 0)]
        values = np.where((bounds[:-1] == bounds[1:]) | ~np.isfinite(newest), np.nan, newest)
        return values, values

    def extent(self, left: float, right: float) -> tuple[float, float] | None:
        """Lowest and highest finite value between two positions; None if there is none."""
        lows, highs = self.columns(np.array([left, np.nextafter(right, np.inf)]))
        return None if np.isnan(lows[0]) else (float(lows[0]), float(highs[0]))

    def _bounds(self, edges: Floats) -> NDArray[np.int64]:
        """Number of points before each edge."""
        if not self._count:
            return np.zeros(len(edges), dtype=np.int64)
        return np.searchsorted(np.frombuffer(self._series.x)[: self._count], edges)

    def _blocks(self, side: int, level: int, first: int, last: int) -> Floats:
        """Minima or maxima of blocks of a level. A non-finite point is neutral; it is marked separately from the line."""
        if level:
            return self._levels[level - 1][side][first:last]
        if first >= last:
            return np.empty(0)
        values = np.frombuffer(self._series.y)[first:last]
        return np.where(np.isfinite(values), values, _SIDES[side][1])

    def _raise_levels(self, start: int) -> None:
        """Build the blocks above the points from `start` on."""
        level = 0
        while self._count > _FANOUT ** (level + 1):
            if len(self._levels) == level:
                self._levels.append([np.empty(64), np.empty(64)])
                start = 0
            first, last = start // _FANOUT ** (level + 1), -(-self._count // _FANOUT**level)
            arrays = self._levels[level]
            for side, (reduce, neutral) in enumerate(_SIDES):
                part = self._blocks(side, level, first * _FANOUT, last)
                padded = np.full(-(-len(part) // _FANOUT) * _FANOUT, neutral)
                padded[: len(part)] = part
                arrays[side] = _store(arrays[side], first, reduce.reduce(padded.reshape(-1, _FANOUT), axis=1))
            level += 1


def _store(array: Floats, start: int, values: Floats) -> Floats:
    """Write values from an index on, into a larger array if there is no room."""
    needed = start + len(values)
    if needed > len(array):
        larger = np.empty(max(needed, 2 * len(array)))
        larger[:start] = array[:start]
        array = larger
    array[start:needed] = values
    return array


def _reduce(
    reduce: np.ufunc, values: Floats, starts: NDArray[np.int64], ends: NDArray[np.int64], neutral: float
) -> Floats:
    """Minimum or maximum of values[start:end] for each pair."""
    # reduceat takes pairs of bounds as one list and needs each index inside; the appended neutral value is that room.
    padded = np.append(values, neutral)
    pairs = np.empty(2 * len(starts), dtype=np.int64)
    pairs[0::2], pairs[1::2] = starts, ends
    result: Floats = reduce.reduceat(padded, np.minimum(pairs, len(values)))[0::2]
    return np.where(starts < ends, result, neutral)
