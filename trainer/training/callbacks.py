"""What the loop and its evaluations ask of the session that runs them."""

from __future__ import annotations

from typing import Protocol

from trainer.errors import CheckpointError, R18Error
from trainer.evaluation.evaluate import Evaluation
from trainer.model.checkpoint import Checkpoint
from trainer.run.log.events import Event


class DivergedError(R18Error):
    """Step after step has a loss or a gradient that is NaN or infinite."""


class LoopCallbacks(Protocol):
    """What the loop asks of its session."""

    def publish(self, event: Event) -> None:
        """Log an event."""

    def poll(self, evaluating: float | None = None) -> None:
        """Take commands; returns when training may go on.

        Args:
            evaluating: Share of an evaluation that is done; None between training steps.

        Raises:
            StopRequested: To end the run.
        """

    def save(self, *, best: bool = False) -> None:
        """Snapshot the state and hand it to the writer."""

    def saved_best(self) -> Checkpoint:
        """The best state of the run, from the disk.

        Raises:
            CheckpointError: When it is not there.
        """

    def feeding(self, epoch: int) -> None:
        """Images of an epoch (from 0) are about to be trained on."""

    def evaluating(self, split: str) -> None:
        """An evaluation begins."""

    def training(self) -> None:
        """Training goes on."""

    def measured(self, split: str, evaluation: Evaluation, step: int) -> None:
        """An evaluation has ended.

        Args:
            split: `val` or `test`.
            evaluation: Its result.
            step: Steps after which the weights were what was measured.
        """

    def diverged(self, step: int, first_skipped: int) -> None:
        """Too many steps in a row were left out; returns when training may go on.

        Args:
            step: The last of them.
            first_skipped: The first of them.

        Raises:
            DivergedError: When there is nobody to decide.
        """


class NullCallbacks:
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

    def feeding(self, epoch: int) -> None:
        """There is nobody to look."""

    def evaluating(self, split: str) -> None:
        """There is no log."""

    def training(self) -> None:
        """There is no log."""

    def measured(self, split: str, evaluation: Evaluation, step: int) -> None:
        """There is no run."""

    def diverged(self, step: int, first_skipped: int) -> None:
        """There is nobody to decide."""
        raise DivergedError(f"steps {first_skipped} to {step} were not finite")
