"""trackio: local, in SQLite. `TRACKIO_DIR=RUN/sinks/trackio trackio show`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

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

        super().__init__(trackio.Image)
        self._trackio = trackio
        trackio.init(
            project="r18-tui", name=f"{info.name}-{info.identity}", config=dict(info.settings), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        self._trackio.log(values, step=step)

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self.merge(finite(values), step, time)

    def flush(self) -> None:
        super().flush()
        time.sleep(_WRITTEN_AFTER_S)

    def close(self, results: Mapping[str, float]) -> None:
        self.log_step()
        self._trackio.finish()
