"""The learning-rate range test of a configuration, before any run of it."""

from __future__ import annotations

from pathlib import Path

from trainer.config.freezing import frozen_stages
from trainer.config.schema import Config
from trainer.host.progress import Progress
from trainer.training.build import build_trainer
from trainer.training.callbacks import NullCallbacks
from trainer.training.lr_range_test import LrRange, range_test


def find_lr(config: Config, runs_dir: Path, progress: Progress) -> tuple[LrRange, list[str]]:
    """Build what a run would build, and try rates with it. Nothing is written.

    All stages are trained that are trained at the run's end, since they decide which rates are too high.

    Args:
        config: Of the run to be.
        runs_dir: Where `model.init_from` looks runs up.
        progress: Told what is being done; may raise to cancel.

    Returns:
        What came out, and what else is to be said.

    Raises:
        R18Error: When the run could not be started either.
    """
    built = build_trainer(config, runs_dir, NullCallbacks(), progress, None)
    trainer = built.trainer
    trainer.train_step.prepare(frozen_stages(config.model, config.train.epochs - 1))
    try:
        found = range_test(trainer, lambda share: progress("trying learning rates", share))
    finally:
        trainer.batches.close()
    return found, built.warnings
