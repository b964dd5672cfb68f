"""The learning-rate range test of a configuration, before any run of it."""

from __future__ import annotations

from pathlib import Path

from trainer.build import build_trainer
from trainer.checkpoint import Checkpoint
from trainer.config import Config
from trainer.errors import CheckpointError, R18Error
from trainer.evaluate import Evaluation
from trainer.freezing import frozen_stages
from trainer.lr_finder import LrRange, range_test
from trainer.progress import Progress
from trainer.run.events import Event


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
    built = build_trainer(config, runs_dir, _NoSession(), progress, None)
    trainer = built.trainer
    trainer.train_step.prepare(frozen_stages(config.model, config.train.epochs - 1))
    try:
        found = range_test(trainer, lambda share: progress("trying learning rates", share))
    finally:
        trainer.batches.close()
    return found, built.warnings


class _NoSession:
    """The hooks of a loop that is never run."""

    def publish(self, event: Event) -> None:
        """There is no log."""

    def poll(self, evaluating: float | None = None) -> None:
        """There are no commands."""

    def save(self, *, best: bool = False) -> None:
        """There is no run."""

    def saved_best(self) -> Checkpoint:
        """There is no run."""
        raise CheckpointError("nothing was saved")

    def evaluating(self, split: str) -> None:
        """There is no log."""

    def training(self) -> None:
        """There is no log."""

    def measured(self, split: str, evaluation: Evaluation) -> None:
        """There is no run."""

    def diverged(self, step: int, first_skipped: int) -> None:
        """There is nobody to decide."""
        raise R18Error(f"steps {first_skipped} to {step} were not finite")
