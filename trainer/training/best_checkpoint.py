"""Decides which checkpoint of a run is the best: by accuracy or by loss on the selection split (`eval.best_by`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass
class BestCheckpoint:
    """The best state of a run so far.

    Attributes:
        step: Its step; -1 before the first evaluation with a finite loss.
        accuracy: Its accuracy, 0 to 1.
        loss: Its mean loss; None in checkpoints written before losses were kept.
        improved_step: Step at which the figure that `eval.best_by` names last improved. `step` may be later: at equal accuracy
            a lower loss makes a better state.
        measured_step: Step of the newest evaluation on the selection split.
        tested_step: Step of the best state when it was evaluated on test at the end; -1 before.
    """

    step: int = -1
    accuracy: float | None = None
    loss: float | None = None
    improved_step: int = -1
    measured_step: int = -1
    tested_step: int = -1

    def update(self, step: int, accuracy: float, loss: float, by: Literal["accuracy", "loss"]) -> bool:
        """Compare a new evaluation on the selection split with the best so far.

        Args:
            step: Step of the evaluated state.
            accuracy: Its accuracy, 0 to 1.
            loss: Its mean loss. A state with a loss that is not finite is never the best.
            by: Figure that decides.

        Returns:
            Whether the new state is the best now.
        """
        self.measured_step = step
        if not math.isfinite(loss):
            return False
        lower = self.loss is None or loss < self.loss
        if by == "loss":
            improved = better = self.accuracy is None or lower
        else:
            improved = self.accuracy is None or accuracy > self.accuracy
            # A lower loss alone makes a better state, but is no reason to train on without end.
            better = improved or (accuracy == self.accuracy and self.loss is not None and lower)
        if improved:
            self.improved_step = step
        if better:
            self.step, self.accuracy, self.loss = step, accuracy, loss
        return better

    def forget(self) -> None:
        """Forget the best state: its file is gone."""
        self.step, self.accuracy, self.loss, self.improved_step = -1, None, None, -1

    def restart_patience(self) -> None:
        """Count epochs without improvement from the newest evaluation on."""
        if self.improved_step >= 0:
            self.improved_step = max(self.improved_step, self.measured_step)

    def is_stalled(self, patience_steps: int, *, not_before: int) -> bool:
        """Whether so many steps brought no improvement.

        Args:
            patience_steps: Number of steps.
            not_before: Step at which counting starts at the earliest.
        """
        return self.improved_step >= 0 and self.measured_step - max(self.improved_step, not_before) >= patience_steps
