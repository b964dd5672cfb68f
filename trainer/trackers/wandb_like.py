"""Code shared by Weights & Biases and trackio: both log one dictionary per step, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

STEP = "step"  # x axis of curves: the trackers' own counter increases with every line


class Logger(Protocol):
    """The part of either package that is used."""

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        """Log a line."""


class Lines:
    """Merges the figures of one step into one line."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._values: dict[str, Any] = {}
        self._step = -1
        self._time = 0.0

    def add(self, values: Mapping[str, Any], step: int, time: float) -> None:
        """Add figures of a step; the line of the previous step is then complete."""
        if step != self._step:
            self.flush()
        self._values.update(values)
        self._step, self._time = step, time

    def note(self, text: str, step: int, time: float) -> None:
        """Add a line for people; several of one step are joined."""
        earlier = self._values.get("note") if step == self._step else None
        self.add({"note": text if earlier is None else f"{earlier}\n{text}"}, step, time)

    def flush(self) -> None:
        """Log the current line."""
        if self._values:
            self._logger.log(self._values, self._step, self._time)
            self._values = {}
