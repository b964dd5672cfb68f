"""Interface of a tracker, and the description of the run that it receives."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.config.trackers import TrackerName


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Description of the run whose figures are tracked."""

    name: str
    identity: str  # the same in all sessions of the run, different for every other run
    folder: Path  # existing, for the tracker's files unless the user's environment names another
    config: Mapping[str, Mapping[str, Any]]  # by group and key
    step: int  # last step that an earlier session passed on; 0 for none

    @property
    def settings(self) -> dict[str, str | int | float | bool]:
        """Configuration by dotted keys, without nulls; values that are not plain are converted to text."""
        flat = {f"{group}.{key}": value for group, keys in self.config.items() for key, value in keys.items()}
        return {
            key: value if isinstance(value, str | int | float | bool) else str(value)
            for key, value in flat.items()
            if value is not None
        }


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Number of values in each of several equal bins, from `-limit` to `limit`."""

    counts: Sequence[int]
    limit: float

    @property
    def edges(self) -> list[float]:
        """Edges of the bins, one more than bins."""
        bins = len(self.counts)
        return [self.limit * (2 * index / bins - 1) for index in range(bins + 1)]


class Tracker(Protocol):
    """One tracker in one session, used by one thread. Steps never decrease, unless the run goes back (`back_to`)."""

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Record figures of a step, from 1, at a Unix time; NaN and infinity are possible. A slash in a name separates groups."""

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        """Record a histogram at a step; nothing for a tracker without histograms."""
        return

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        """Record a PNG file."""

    def note(self, text: str, *, step: int, time: float) -> None:
        """Record a line for people."""

    def back_to(self, step: int) -> None:
        """Go back to a step: the run has taken back all later ones. Most trackers cannot delete points."""
        return

    def flush(self) -> None:
        """Write everything so far, so that it survives a crash."""

    def close(self, results: Mapping[str, float]) -> None:
        """End the session; `results` are empty while the run is not over."""


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Select the finite figures, for trackers that accept no others."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def opener(name: TrackerName) -> Callable[[RunInfo], Tracker]:
    """Return the function that opens a tracker for a session. Imports the tracker's package."""
    open_tracker: Callable[[RunInfo], Tracker] = importlib.import_module(f"trainer.trackers.{name}").open_tracker
    return open_tracker
