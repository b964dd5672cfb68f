"""Base of Weights & Biases and trackio: both log one dictionary per step, in order."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from trainer.trackers.tracker import Tracker

STEP = "step"  # x axis of curves: the trackers' own counter increases with every line


class StepMerger(Tracker):
    """A tracker that merges all values of one step into one line."""

    def __init__(self, picture: Callable[[Image.Image], object]) -> None:
        self._picture = picture
        self._values: dict[str, Any] = {}
        self._step = -1
        self._time = 0.0

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        """Log a line of the run."""
        raise NotImplementedError

    def merge(self, values: Mapping[str, Any], step: int, time: float) -> None:
        """Add values of a step; the line of the previous step is then complete."""
        if step != self._step:
            self.log_step()
        self._values.update(values)
        self._step, self._time = step, time

    def log_step(self) -> None:
        """Log the current line."""
        if self._values:
            self.log(self._values, self._step, self._time)
            self._values = {}

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self.merge(values, step, time)

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        self.merge({name: self._picture(Image.open(io.BytesIO(png)))}, step, time)

    def note(self, text: str, *, step: int, time: float) -> None:
        # Several of one step are joined.
        earlier = self._values.get("note") if step == self._step else None
        self.merge({"note": text if earlier is None else f"{earlier}\n{text}"}, step, time)

    def flush(self) -> None:
        self.log_step()
