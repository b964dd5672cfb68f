"""What a tracker has to do, and what it is told of the run."""

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
    """Where figures come from.

    Attributes:
        name: Of the run.
        identity: The same in every session of a run, and of no other run.
        folder: Where the tracker may keep its files, unless the user's environment names another place; exists.
        config: Of the run, by group and key.
        step: The last step that was passed on by an earlier session; 0 for none.
    """

    name: str
    identity: str
    folder: Path
    config: Mapping[str, Mapping[str, Any]]
    step: int

    @property
    def settings(self) -> dict[str, str | int | float | bool]:
        """The configuration by dotted keys; what is no plain value is written out, and what is null left out."""
        flat = {f"{group}.{key}": value for group, keys in self.config.items() for key, value in keys.items()}
        return {
            key: value if isinstance(value, str | int | float | bool) else str(value)
            for key, value in flat.items()
            if value is not None
        }


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How values lie.

    Attributes:
        counts: Of bins of one width.
        reach: They go from minus this to plus this.
    """

    counts: Sequence[int]
    reach: float

    @property
    def edges(self) -> list[float]:
        """Of the bins: one more than there are of them."""
        bins = len(self.counts)
        return [self.reach * (2 * index / bins - 1) for index in range(bins + 1)]


class Tracker(Protocol):
    """One tracker, for one session. Used by one thread of a process that trains nothing.

    Steps never go back, unless the run itself does (`back_to`).
    """

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Figures of a step. NaN and infinity may be among them.

        Args:
            values: By name; a slash divides groups.
            step: Steps done, from 1.
            time: Unix seconds.
        """

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        """How values lay at a step."""

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        """A PNG file."""

    def note(self, text: str, *, step: int, time: float) -> None:
        """A line for people."""

    def back_to(self, step: int) -> None:
        """What was passed on of later steps was taken back by the run."""

    def flush(self) -> None:
        """Everything so far is where a crash leaves it, when this returns."""

    def close(self, results: Mapping[str, float]) -> None:
        """The session is over.

        Args:
            results: What the run has reached; empty where it is not over.
        """


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Those of some figures that are numbers, for trackers that take no others."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def opener(name: SinkName) -> Callable[[Origin], Tracker]:
    """What opens a tracker for a session. Imports its package."""
    open_sink: Callable[[Origin], Tracker] = importlib.import_module(f"trainer.trackers.{name}").open_sink
    return open_sink
