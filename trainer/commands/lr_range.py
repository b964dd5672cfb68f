"""Runs the learning-rate range test of a configuration before a run is started."""

from __future__ import annotations

from pathlib import Path

from trainer.config.freezing import frozen_stages
from trainer.config.schema import Config
from trainer.host.progress import Progress
from trainer.run.log.result_events import LrRangeTested
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.lr_range_test import range_test


def find_lr(config: Config, runs_dir: Path, progress: Progress) -> tuple[LrRangeTested, list[str]]:
    """Build the same parts as a run and try learning rates, without writing anything; returns the result and warnings.

    The stages that are trained at the end of the run are trained, since they decide which rates are too high.
    `progress` may raise to cancel. R18Error when a run of this configuration could not be started either.
    """
    built = build_trainer(config, runs_dir, LoopCallbacks(), progress, None)
    trainer = built.trainer
    trainer.train_step.prepare(frozen_stages(config.model, config.train.epochs - 1))
    try:
        found = range_test(trainer, lambda share: progress("trying learning rates", share))
    finally:
        trainer.batches.close()
    return found, built.warnings
