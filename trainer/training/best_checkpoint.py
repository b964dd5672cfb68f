"""Decides which checkpoint of a run is the best: by accuracy or by loss on the selection split (`eval.best_by`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass
class BestCheckpoint:
    """The best state of a run so far."""

    step: int = -1  # -1 before the first evaluation with a finite loss
    accuracy: float | None = None  # 0 to 1
    loss: float | None = None  # None in checkpoints written before losses were kept
    improved_step: int = -1  # when the figure of `eval.best_by` last improved; `step` may be later, by a lower loss
    evaluated_step: int = -1  # newest evaluation on the selection split
    tested_step: int = -1  # `step` when it was evaluated on test at the end; -1 before

    def update(self, step: int, accuracy: float, loss: float, by: Literal["accuracy", "loss"]) -> bool:
        """Compare an evaluation on the selection split with the best; whether it is better, never with a non-finite loss."""
        self.evaluated_step = step
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
            self.improved_step = max(self.improved_step, self.evaluated_step)

    def is_stalled(self, patience_steps: int, *, not_before: int) -> bool:
        """Whether `patience_steps` brought no improvement, counted from step `not_before` at the earliest."""
        return self.improved_step >= 0 and self.evaluated_step - max(self.improved_step, not_before) >= patience_steps
