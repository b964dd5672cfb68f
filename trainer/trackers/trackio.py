"""trackio: local, in SQLite. `TRACKIO_DIR=RUN/sinks/trackio trackio show`."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from trainer.trackers.tracker import Histogram, Origin, finite
from trainer.trackers.wandb_like import Lines

_WRITTEN_AFTER_S = 1.2  # trackio's thread writes twice a second


def open_tracker(origin: Origin) -> TrackioSink:
    """Open a run of the project r18-tui."""
    os.environ.setdefault("TRACKIO_DIR", str(origin.folder))  # before the import, which reads it
    return TrackioSink(origin)


class TrackioSink:
    """Implements `Tracker`."""

    def __init__(self, origin: Origin) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(
            project="r18-tui", name=f"{origin.name}-{origin.identity}", config=dict(origin.settings), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self._lines = Lines(self)

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        """Log a line of the run."""
        self._trackio.log(values, step=step)

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Log figures of a step."""
        self._lines.add(finite(values), step, time)

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        """Do nothing: trackio needs all values for a histogram, and the log does not keep them."""

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        """Log an image."""
        self._lines.add({name: self._trackio.Image(Image.open(io.BytesIO(png)))}, step, time)

    def note(self, text: str, *, step: int, time: float) -> None:
        """Log a text."""
        self._lines.note(text, step, time)

    def back_to(self, step: int) -> None:
        """Do nothing: trackio cannot delete points."""

    def flush(self) -> None:
        """Pass on the current line, and leave trackio's thread the time to write it."""
        self._lines.flush()
        time.sleep(_WRITTEN_AFTER_S)

    def close(self, results: Mapping[str, float]) -> None:
        """End the session."""
        self._lines.flush()
        self._trackio.finish()
