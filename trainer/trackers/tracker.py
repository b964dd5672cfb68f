"""Interface of a tracker, and the description of the run that it receives."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.config.trackers import SinkName


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Description of the run whose figures are tracked.

    Attributes:
        name: Name of the run.
        identity: Identifier of the run: the same in all its sessions, and different for every other run.
        folder: Existing folder for the tracker's files, unless the user's environment names another place.
        config: Configuration of the run, by group and key.
        step: Last step that an earlier session passed on; 0 for none.
    """

    name: str
    identity: str
    folder: Path
    config: Mapping[str, Mapping[str, Any]]
    step: int

    @property
    def settings(self) -> dict[str, str | int | float | bool]:
        """Configuration by dotted keys; other than plain values are written out as text, and nulls are omitted."""
        flat = {f"{group}.{key}": value for group, keys in self.config.items() for key, value in keys.items()}
        return {
            key: value if isinstance(value, str | int | float | bool) else str(value)
            for key, value in flat.items()
            if value is not None
        }


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Histogram of values, with equal bins.

    Attributes:
        counts: Number of values in each bin.
        reach: Upper end of the bins, which extend from minus this to plus this.
    """

    counts: Sequence[int]
    reach: float

    @property
    def edges(self) -> list[float]:
        """Edges of the bins: one more than there are bins."""
        bins = len(self.counts)
        return [self.reach * (2 * index / bins - 1) for index in range(bins + 1)]


class Tracker(Protocol):
    """One tracker, for one session. Used by one thread of a process that does not train.

    Steps never decrease, unless the run itself goes back (`back_to`).
    """

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Record figures of a step. NaN and infinity may be among them.

        Args:
            values: Figures by name; a slash separates groups.
            step: Number of steps done, from 1.
            time: Unix time in seconds.
        """

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        """Record a histogram at a step."""

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        """Record a PNG file."""

    def note(self, text: str, *, step: int, time: float) -> None:
        """Record a line for people."""

    def back_to(self, step: int) -> None:
        """Go back to a step: the run has taken back all later steps."""

    def flush(self) -> None:
        """Flush pending writes, so that everything so far survives a crash."""

    def close(self, results: Mapping[str, float]) -> None:
        """End the session.

        Args:
            results: Results of the run; empty where it is not over.
        """


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Select the finite figures, for trackers that accept no others."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def opener(name: SinkName) -> Callable[[Origin], Tracker]:
    """Return the function that opens a tracker for a session. Imports the tracker's package."""
    open_sink: Callable[[Origin], Tracker] = importlib.import_module(f"trainer.trackers.{name}").open_sink
    return open_sink
