"""What Weights & Biases and trackio have in common: one dictionary a step, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

STEP = "step"
"""The figure that curves are drawn over: the trackers' own counter goes on by one with every line."""


class Logger(Protocol):
    """The part of either package that is used."""

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        """A line."""


class Lines:
    """Joins what belongs to one step into one line."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._values: dict[str, Any] = {}
        self._step = -1
        self._time = 0.0

    def add(self, values: Mapping[str, Any], step: int, time: float) -> None:
        """Figures of a step; those of the step before are then complete."""
        if step != self._step:
            self.flush()
        self._values.update(values)
        self._step, self._time = step, time

    def note(self, text: str, step: int, time: float) -> None:
        """A line for people; several of one step are joined."""
        told = self._values.get("note") if step == self._step else None
        self.add({"note": text if told is None else f"{told}\n{text}"}, step, time)

    def flush(self) -> None:
        """Hand the line over that is being joined."""
        if self._values:
            self._logger.log(self._values, self._step, self._time)
            self._values = {}
