"""Learning-rate range test: a few steps at rates that rise from step to step, on a copy of the state.

Weights, statistics, momentum and draws of the run stay as they are, to the bit: everything happens on copies, and what is drawn
hangs on the position alone.

Source: Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3. Where the loss falls fastest
is fastai's "steep" suggestion.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.data.batches.batches import Batch
from trainer.training.loop import Trainer
from trainer.training.optimizer import build_optimizer

LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 100
_SMOOTHING = 0.9
_HOPELESS = 4.0
"""Times the lowest loss, from which on, above the loss of guessing, nothing more is to be learned."""
_LEAST_FALL = 0.1
"""Share of the loss whose fall is large enough to suggest a rate, whatever the noise."""
_LEAST_CLEAR_FALL, _NOISES = 0.01, 4.0
"""A smaller fall into a valley is enough when it is so many times the noise, the standard deviation of the loss at the lowest
rates."""
_REACH = 5
"""Steps to either side over which the loss's fall is measured: over one it is noise."""
_FEWEST = 10
"""Steps before which no loss counts as the lowest: the average is still mostly the first one."""


@dataclass(frozen=True, kw_only=True)
class LrRange:
    """What came out.

    Attributes:
        lrs: Rate of each step.
        losses: Smoothed loss after it.
        suggestion: A rate to train with; None where the loss fell at none.
        reason: Why this one, or why none, for people.
    """

    lrs: list[float]
    losses: list[float]
    suggestion: float | None
    reason: str


def range_test(
    trainer: Trainer,
    poll: Callable[[float], None],
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
) -> LrRange:
    """Try rates.

    Args:
        trainer: Between two steps; left as it was.
        poll: Called before each step, and while a batch is awaited, with the share done; may raise to stop.
        lowest: First rate.
        highest: Last rate, unless the loss explodes before.
        steps: How many rates.
    """
    model = copy.deepcopy(trainer.state.model)
    optimizer = build_optimizer(model, trainer.config.optim, precision=trainer.train_step.numerics.precision)
    step = trainer.train_step.on(model, optimizer)
    step.prepare(trainer.train_step.frozen)
    metrics_3 = torch.zeros(3, device=trainer.device)
    lrs: list[float] = []
    losses: list[float] = []
    average, chance = 0.0, math.log(len(trainer.data.dataset.classes))
    done = 0.0
    source = trainer.feature_batches if step.features_MF is not None else trainer.batches
    try:
        batches = _endless(trainer, source.epoch, lambda: poll(done))
        for index, (epoch, batch) in zip(range(steps), batches, strict=False):
            done = index / steps
            poll(done)
            lr = lowest * (highest / lowest) ** (index / (steps - 1))
            step(batch, epoch=epoch, lr=lr, metrics_3=metrics_3)
            loss, skipped = float(metrics_3[0]), bool(metrics_3[2])
            if not math.isfinite(loss) or (skipped and not step.loss_scale.enabled):
                break
            if skipped:
                continue  # the loss was scaled too much, and will be less
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            lrs.append(lr)
            losses.append(average / (1 - _SMOOTHING ** len(lrs)))
            if len(losses) > _FEWEST and losses[-1] > max(_HOPELESS * min(losses[_FEWEST:]), chance):
                break
    finally:
        trainer.batches.close()  # workers have decoded ahead; training starts its own where it stands
    suggestion, reason = suggest(lrs, losses)
    return LrRange(lrs=lrs, losses=losses, suggestion=suggestion, reason=reason)


def suggest(lrs: Sequence[float], losses: Sequence[float]) -> tuple[float | None, str]:
    """A rate to train with, and why.

    Args:
        lrs: Rising.
        losses: Smoothed, one a rate.
    """
    if len(lrs) <= _FEWEST:
        return (
            None,
            f"the loss was not finite or exploded after {len(lrs)} steps, at a rate of {lrs[-1] if lrs else 0:.2g}",
        )
    # Of the first losses the average is mostly noise.
    low = min(range(_FEWEST, len(losses)), key=losses.__getitem__)
    slopes = {
        middle: (losses[middle + _REACH] - losses[middle - _REACH])
        / math.log(lrs[middle + _REACH] / lrs[middle - _REACH])
        for middle in range(_REACH, min(low, len(lrs) - _REACH))
    }
    steepest = min(slopes, key=slopes.__getitem__, default=0)
    if not slopes or slopes[steepest] >= 0 or losses[low] >= losses[_REACH]:
        return None, "the loss fell at none of the rates; look at the data, or begin from other weights"
    fall, noise = losses[_REACH] - losses[low], statistics.pstdev(losses[_REACH : max(len(losses) // 4, _REACH + 2)])
    valley = losses[-1] - losses[low] > fall > max(_LEAST_CLEAR_FALL * losses[_REACH], _NOISES * noise)
    if fall < _LEAST_FALL * losses[_REACH] and not valley:
        moved = f"from {losses[_REACH]:.3g} to {losses[low]:.3g}"
        return None, f"the loss changed too little to suggest a rate: {moved}, with a noise of {noise:.2g}"
    rate = _rounded(lrs[steepest])
    end = "" if low >= len(lrs) - 2 else f", is lowest at {lrs[low]:.2g} and grows from there"
    return rate, f"the loss falls fastest at about {rate:g}{end}"


def _endless(
    trainer: Trainer, epoch_of: Callable[[int, int], Iterator[Batch | None]], waiting: Callable[[], None]
) -> Iterator[tuple[int, Batch]]:
    """Batches from where the run stands, epoch after epoch; `waiting` is called while the next one is not there yet."""
    first = trainer.state.epoch_step
    for epoch in itertools.count(trainer.state.epoch):
        for batch in epoch_of(min(epoch, trainer.config.train.epochs - 1), first):
            if batch is None:
                waiting()
            else:
                yield epoch, batch
        first = 0


def _rounded(rate: float) -> float:
    """To one digit: nothing more is known."""
    return float(f"{rate:.0e}")
