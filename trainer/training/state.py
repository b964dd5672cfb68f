"""The state of a run: everything that must survive a resume."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from trainer.config.lr_schedule import LrSchedule
from trainer.model.checkpoint import Checkpoint
from trainer.model.checkpoint_records import RunRecord, StateRecord
from trainer.model.ema import ModelEma
from trainer.training.best_checkpoint import BestCheckpoint
from trainer.training.loss_scale import LossScale
from trainer.training.metrics import Window
from trainer.training.optimizer import load_momentum_state, momentum_state
from trainer.training.sgd import SGD
from trainer.training.snapshot import Snapshot

_RECORDED = ("step", "evaluation_due", "unfrozen_by_key", "unfrozen_step", "last_evaluation")
"""Attributes of the state that a checkpoint records under the same name."""
_RECORDED_OF_BEST = {
    "step": "best_step", "accuracy": "best_accuracy", "loss": "best_loss", "improved_step": "improved_step",
    "evaluated_step": "measured_step", "tested_step": "tested_step",
}  # fmt: skip
"""The same for `BestCheckpoint`: each attribute, and its name in a checkpoint."""


@dataclass
class EpochSums:
    """Training metrics of the epoch in progress."""

    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    seconds: float = 0.0  # duration of its steps

    def add(self, window: Window) -> None:
        """Add the steps of a window."""
        steps = zip(window.losses, window.accuracies, window.skipped, window.images, strict=True)
        for loss, accuracy, skipped, images in steps:
            if not skipped:
                self.loss += loss * images
                self.correct += accuracy * images
                self.images += images
        self.seconds += window.seconds

    @property
    def mean_loss(self) -> float:
        """Mean loss of the epoch so far; NaN where no step has changed the weights."""
        return self.loss / self.images if self.images else math.nan

    @property
    def accuracy(self) -> float:
        """Training top-1 of the epoch so far, 0 to 1; NaN where no step has changed the weights."""
        return self.correct / self.images if self.images else math.nan


@dataclass
class TrainState:
    """The state of a run. Only the training thread touches it."""

    model: nn.Module
    optimizer: SGD
    schedule: LrSchedule
    ema: ModelEma | None = None
    loss_scale: LossScale = field(default_factory=lambda: LossScale(torch.device("cpu"), precision="fp32"))
    unfrozen_by_key: int = 0  # net number of stages: unfrozen minus frozen
    unfrozen_step: int = -1  # steps done when `unfrozen_by_key` last changed
    step: int = 0  # optimizer steps done
    sums: EpochSums = field(default_factory=EpochSums)
    evaluation_due: bool = False  # the last epoch has ended without its evaluation
    best: BestCheckpoint = field(default_factory=BestCheckpoint)
    last_evaluation: dict[str, Any] | None = None  # split, step and accuracy

    @property
    def finite(self) -> bool:
        """Whether every weight and statistic is finite; waits for the device."""
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        return all(bool(torch.isfinite(value).all()) for value in values)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and exported: the averaged weights where an average is kept, else the weights."""
        return self.model if self.ema is None else self.ema.model

    @property
    def epoch(self) -> int:
        """Whole epochs done; also the number, from 0, of the next step's epoch."""
        return self.step // self.schedule.steps_per_epoch

    @property
    def epoch_step(self) -> int:
        """Steps done in the epoch in progress."""
        return self.step % self.schedule.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.schedule.total_steps

    def snapshot(self, run: RunRecord) -> Snapshot:
        """A copy of the state, which later steps do not change."""
        groups = {"model": self.model.state_dict(), "momentum": momentum_state(self.model, self.optimizer)}
        if self.ema is not None:
            groups["ema"] = self.ema.model.state_dict()
        tensors = {f"{group}.{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
        record = StateRecord(
            **{name: getattr(self, name) for name in _RECORDED},
            epoch=self.epoch,
            epoch_step=self.epoch_step,
            epoch_sums=asdict(self.sums),
            loss_scale=[],
            lr_edits=list(self.schedule.edits),
            shortest_plan=self.schedule.shortest_plan,
            **{recorded: getattr(self.best, name) for name, recorded in _RECORDED_OF_BEST.items()},
        )
        return Snapshot(tensors, run, record, self.loss_scale.state_2 if self.loss_scale.enabled else None)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore a snapshot; devices and memory layouts do not change."""
        self.model.load_state_dict(checkpoint.group("model"))
        load_momentum_state(self.model, self.optimizer, checkpoint.group("momentum"))
        if self.ema is not None:
            self.ema.model.load_state_dict(checkpoint.group("ema"))
        record = checkpoint.state
        self.loss_scale.restore(record.loss_scale)
        for name in _RECORDED:
            setattr(self, name, getattr(record, name))
        self.best = BestCheckpoint(**{name: getattr(record, recorded) for name, recorded in _RECORDED_OF_BEST.items()})
        if record.improved_step is None:
            self.best.improved_step = record.best_step
        self.sums = EpochSums(**record.epoch_sums)
        self.schedule.edits = list(record.lr_edits)
        # Older checkpoints record only the plan that they were trained by.
        planned = int(checkpoint.run.config["train"]["epochs"])
        self.schedule.shortest = planned if record.shortest_plan is None else record.shortest_plan
