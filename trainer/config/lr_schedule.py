"""The learning rate as a pure function of the step, for training and for drawing the future course.

The rate at a step is `lr * factor(step) * edits`: the schedule's factor, times every factor that the user has applied
by key up to that step. So an edit scales the rest of the schedule and keeps its shape.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

from trainer.config.schema import Config, ScheduleConfig

_SAMPLES = 256  # intervals at which a whole schedule is sampled, for drawing it


@dataclass(kw_only=True)
class LrSchedule:
    """Learning rates of one run. The warm-up is a share of the shortest plan so far: a longer one does not warm up again."""

    config: ScheduleConfig
    lr: float  # peak rate
    epochs: int
    steps_per_epoch: int  # optimizer steps
    edits: list[tuple[int, float]] = field(default_factory=list)  # `(step, factor)` in order; applies from that step on
    shortest: int | None = None  # epochs of the shortest earlier plan; None without one

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def shortest_plan(self) -> int:
        """Length in epochs of the shortest plan so far, this one included."""
        return min(self.epochs, self.shortest or self.epochs)

    def at(self, step: int) -> float:
        """Rate that the optimizer uses for `step`, counted from 0 up to `total_steps - 1`."""
        rate = self.planned(step)
        for start, factor in self.edits:
            rate *= factor if start <= step else 1.0
        return rate

    def planned(self, step: int) -> float:
        """Rate without the user's edits; with `unit: epoch` that of the epoch's first step, as torch's schedulers do."""
        if self.config.unit == "epoch":
            return self.lr * self._factor(step // self.steps_per_epoch, per_epoch=1)
        return self.lr * self._factor(step, per_epoch=self.steps_per_epoch)

    def _factor(self, position: int, *, per_epoch: int) -> float:
        """Factor of the peak rate, 0 to 1, at a step or epoch `position`, counted from 0.

        `per_epoch` is the number of positions in an epoch: 1 when they are epochs.

        Source: linear warm-up then linear decay as in K. Jordan's ResNet-18 baselines (cifar10-zoo); cosine as in
        Loshchilov and Hutter, SGDR (arXiv:1608.03983), eq. 5 without restarts.
        """
        config = self.config
        warmup = config.warmup * (self.shortest_plan * per_epoch)
        if position < warmup:
            return config.warmup_start + (1.0 - config.warmup_start) * position / warmup
        progress = (position - warmup) / max(self.epochs * per_epoch - warmup, 1e-9)
        if config.name == "linear":
            return 1.0 + (config.end - 1.0) * progress
        if config.name == "cosine":
            return config.end + (1.0 - config.end) * 0.5 * (1.0 + math.cos(math.pi * progress))
        if config.name == "step":
            return config.gamma ** bisect.bisect_right(config.milestones, position // per_epoch)
        return 1.0

    def replan(self, epochs: int) -> None:
        """Change the number of epochs; the warm-up keeps its length or becomes shorter."""
        self.shortest = self.shortest_plan
        self.epochs = epochs

    def samples(self) -> list[list[float]]:
        """Sample the whole schedule without the user's edits: `[steps, rates]`; steps count from 1, as in the log."""
        last = self.total_steps - 1
        steps = sorted({round(last * index / _SAMPLES) for index in range(_SAMPLES + 1)})
        return [[float(step + 1) for step in steps], [float(f"{self.planned(step):.6g}") for step in steps]]

    def edited(self, step: int) -> float:
        """Product of the factors of all edits at a step."""
        return math.prod(factor for start, factor in self.edits if start <= step)

    def edit(self, step: int, factor: float) -> None:
        """Scale the rate by `factor` from `step` on."""
        self.edits.append((step, factor))


def schedule_of(config: Config, *, steps_per_epoch: int) -> LrSchedule:
    """Create the schedule of a configured run."""
    return LrSchedule(
        config=config.schedule, lr=config.optim.lr, epochs=config.train.epochs, steps_per_epoch=steps_per_epoch
    )
