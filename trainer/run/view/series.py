"""A growing series of points, and its debiased running mean."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence

_CHUNK = 4096


class Series:
    """Points with increasing x (optimizer steps); y is NaN where the value was not finite.

    `generation` increases when points were removed; sums over them must then be computed again.
    """

    __slots__ = ("generation", "x", "y")

    def __init__(self) -> None:
        self.x = array("d")
        self.y = array("d")
        self.generation = 0

    def __len__(self) -> int:
        return len(self.x)

    def __eq__(self, other: object) -> bool:
        # Bytes, so that two NaN are equal: a replay must give exactly the same series.
        return isinstance(other, Series) and (self.x.tobytes(), self.y.tobytes()) == (
            other.x.tobytes(),
            other.y.tobytes(),
        )

    __hash__ = None  # type: ignore[assignment]

    def append(self, x: float, y: float) -> None:
        """Add a point to the right of all others."""
        self.extend((x,), (y,))

    def put(self, x: float, y: float) -> None:
        """Add a point to the right of all others, or replace the last one if it is at `x`."""
        if self.x and self.x[-1] == x:
            self.y[-1] = y
            self.generation += 1
        else:
            self.append(x, y)

    def extend(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Add points of increasing x to the right of all others; x and y have the same length."""
        self.x.extend(x)
        self.y.extend(y)

    def drop_after(self, x: float) -> None:
        """Remove every point to the right of `x`."""
        keep = bisect_right(self.x, x)
        del self.x[keep:]
        del self.y[keep:]
        self.generation += 1

    @property
    def last(self) -> float | None:
        """The newest value; None when there is none."""
        return self.y[-1] if self.y else None


class Smoothed:
    """The exponential moving average of a series over all its points, debiased so that it starts at the first value.

    `beta` is the weight of the previous mean. Computed on access: only one of several strengths is on the screen.

    Source: the bias correction of Adam (Kingma and Ba, arXiv:1412.6980, section 3).
    """

    __slots__ = ("_generation", "_mean", "_raw", "_weight", "_y", "beta")

    def __init__(self, raw: Series, beta: float) -> None:
        self.beta = beta
        self._raw = raw
        self._start_again()

    def __len__(self) -> int:
        return len(self._raw)

    @property
    def x(self) -> array[float]:
        """Positions of the raw points."""
        return self._raw.x

    @property
    def y(self) -> array[float]:
        """The mean at each position."""
        if self._generation != self._raw.generation:
            self._start_again()
        while len(self._y) < len(self._raw):
            self._add(self._raw.y[len(self._y) : len(self._y) + _CHUNK])
        return self._y

    @property
    def generation(self) -> int:
        """Increases when points were removed."""
        return self._raw.generation

    @property
    def last(self) -> float | None:
        """The newest mean; None when there is none."""
        return self.y[-1] if len(self) else None

    def _start_again(self) -> None:
        self._generation = self._raw.generation
        self._y = array("d")
        self._mean = self._weight = 0.0

    def _add(self, values: Sequence[float]) -> None:
        """Add raw values; a non-finite one leaves the mean unchanged."""
        # Local names for speed: attaching to a run passes a history of a million steps through here.
        beta, gain, mean, weight = self.beta, 1.0 - self.beta, self._mean, self._weight
        if beta * weight + gain == weight and math.isfinite(sum(values)):
            # The common case in a long history: the weight has reached its limit, and all values are finite.
            means = [(mean := beta * mean + gain * value) / weight for value in values]
        else:
            means = []
            for value in values:
                if math.isfinite(value):
                    mean = beta * mean + gain * value
                    weight = beta * weight + gain
                means.append(mean / weight if weight else math.nan)
        self._mean, self._weight = mean, weight
        self._y.extend(array("d", means))
