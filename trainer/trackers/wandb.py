"""Weights & Biases, offline unless `WANDB_MODE` says otherwise: `wandb sync` uploads a run, `wandb leet` opens it locally."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb
from PIL import Image

from trainer.trackers.tracker import Histogram, Origin
from trainer.trackers.wandb_like import STEP, Lines


def open_tracker(origin: Origin) -> WandbSink:
    """Open a run of `WANDB_PROJECT`, by default r18-tui. Sends nothing about this machine beyond the configuration."""
    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
        x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False, host="",
    )  # fmt: skip
    mode: Any = os.environ.get("WANDB_MODE", "offline")  # wandb itself rejects other modes
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "r18-tui"), name=origin.name, id=origin.identity, resume="allow",
        dir=os.environ.get("WANDB_DIR", str(origin.folder)), mode=mode,
        config={group: dict(keys) for group, keys in origin.config.items()}, settings=settings,
    )  # fmt: skip
    run.define_metric(STEP, hidden=True)
    run.define_metric("*", step_metric=STEP)
    return WandbSink(run)


class WandbSink:
    """Implements `Tracker`."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._lines = Lines(self)

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        """Log a line of the run. The step is a metric, since wandb's own counter rejects steps that it has seen."""
        self._run.log({**values, STEP: step, "_timestamp": time})

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Log figures of a step."""
        self._lines.add(values, step, time)

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        """Log a histogram."""
        whole = wandb.Histogram(np_histogram=(np.array(values.counts), np.array(values.edges)))
        self._lines.add({name: whole}, step, time)

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        """Log an image."""
        self._lines.add({name: wandb.Image(Image.open(io.BytesIO(png)))}, step, time)

    def note(self, text: str, *, step: int, time: float) -> None:
        """Add a text to the step's line."""
        self._lines.note(text, step, time)

    def back_to(self, step: int) -> None:
        """Do nothing: wandb cannot delete points. The note of the resume records it."""

    def flush(self) -> None:
        """Pass on the current line; wandb writes it at once."""
        self._lines.flush()

    def close(self, results: Mapping[str, float]) -> None:
        """End the session."""
        self._lines.flush()
        self._run.summary.update(dict(results))
        self._run.finish()
