"""Weights & Biases, offline unless `WANDB_MODE` says otherwise: `wandb sync` uploads a run, `wandb leet` opens it locally."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb

from trainer.trackers.tracker import Histogram, RunInfo
from trainer.trackers.wandb_like import STEP, StepMerger


def open_tracker(info: RunInfo) -> WandbTracker:
    """Open a run of `WANDB_PROJECT`, by default r18-tui. Sends nothing about this machine beyond the configuration."""
    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
        x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False, host="",
    )  # fmt: skip
    mode: Any = os.environ.get("WANDB_MODE", "offline")  # wandb itself rejects other modes
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "r18-tui"), name=info.name, id=info.identity, resume="allow",
        dir=os.environ.get("WANDB_DIR", str(info.folder)), mode=mode,
        config={group: dict(keys) for group, keys in info.config.items()}, settings=settings,
    )  # fmt: skip
    run.define_metric(STEP, hidden=True)
    run.define_metric("*", step_metric=STEP)
    return WandbTracker(run)


class WandbTracker(StepMerger):
    """A run of wandb, which cannot delete points: the note of a resume records it."""

    def __init__(self, run: wandb.Run) -> None:
        super().__init__(wandb.Image)
        self._run = run

    def log(self, values: dict[str, Any], step: int, time: float) -> None:
        # The step is a metric, since wandb's own counter rejects steps that it has seen.
        self._run.log({**values, STEP: step, "_timestamp": time})

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        whole = wandb.Histogram(np_histogram=(np.array(values.counts), np.array(values.edges)))
        self.merge({name: whole}, step, time)

    def close(self, results: Mapping[str, float]) -> None:
        self.log_step()
        self._run.summary.update(dict(results))
        self._run.finish()
