"""trackio: local, in SQLite. `TRACKIO_DIR=RUN/sinks/trackio trackio show`."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from trainer.trackers.tracker import RunInfo, finite
from trainer.trackers.wandb_like import StepMerger

_WRITTEN_AFTER_S = 1.2  # trackio's thread writes twice a second


def open_tracker(info: RunInfo) -> TrackioTracker:
    """Open a run of the project r18-tui."""
    os.environ.setdefault("TRACKIO_DIR", str(info.folder))  # before the import, which reads it
    return TrackioTracker(info)


class TrackioTracker(StepMerger):
    """A run in trackio's database, which needs all values for a histogram; the log does not keep them."""

    def __init__(self, info: RunInfo) -> None:
        import trackio

        super().__init__()
        self._trackio = trackio
        trackio.init(
            project="r18-tui", name=f"{info.name}-{info.identity}", config=dict(info.settings), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        """Log a line of the run."""
        self._trackio.log(values, step=step)

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Log figures of a step."""
        self.merge(finite(values), step, time)

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        """Log an image."""
        self.merge({name: self._trackio.Image(Image.open(io.BytesIO(png)))}, step, time)

    def flush(self) -> None:
        """Pass on the current line, and leave trackio's thread the time to write it."""
        self.log_step()
        time.sleep(_WRITTEN_AFTER_S)

    def close(self, results: Mapping[str, float]) -> None:
        """End the session."""
        self.log_step()
        self._trackio.finish()
