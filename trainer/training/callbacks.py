"""Callbacks from the loop and its evaluations to the session that runs them."""

from __future__ import annotations

from trainer.errors import CheckpointError, R18Error
from trainer.evaluation.evaluate import Evaluation
from trainer.model.checkpoint import Checkpoint
from trainer.run.log.event import Event


class DivergedError(R18Error):
    """Too many consecutive steps had a loss or a gradient that is NaN or infinite."""


class LoopCallbacks:
    """Callbacks of the training loop. This base class serves a loop without a session: it does nothing, or raises."""

    def publish(self, event: Event) -> None:
        """Log an event."""

    def poll(self, evaluating: float | None = None) -> None:
        """Handle commands and return when training may continue; StopRequested ends the run.

        `evaluating` is the share of an evaluation that is done, 0 to 1; None between training steps.
        """

    def save(self, *, best: bool = False) -> None:
        """Snapshot the state and hand it to the writer."""

    def saved_best(self) -> Checkpoint:
        """Read the best checkpoint from disk; CheckpointError when there is none."""
        raise CheckpointError("nothing was saved")

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first batch of an epoch (from 0) is trained on."""

    def on_evaluation_start(self, split: str) -> None:
        """Called before an evaluation begins."""

    def on_training_resumed(self) -> None:
        """Called when training continues."""

    def on_evaluation_end(self, split: str, evaluation: Evaluation, step: int) -> None:
        """Called after an evaluation of `val` or `test`; `step` is that of the evaluated weights."""

    def on_divergence(self, step: int, first_skipped: int) -> None:
        """Called after skipped steps `first_skipped` to `step`; returns to continue training, or raises DivergedError."""
        raise DivergedError(f"steps {first_skipped} to {step} were non-finite (NaN/Inf)")
