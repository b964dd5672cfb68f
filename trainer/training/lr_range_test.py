"""Learning-rate range test: a few steps at increasing rates, on a copy of the state.

The run is not changed by a single bit: the test has its own weights, statistics and momentum, and draws depend on the
position alone.

Source: Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3. The rate where the loss falls
fastest is fastai's "steep" suggestion.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from trainer.data.batches.batches import Batch
from trainer.run.log.result_events import LrRangeTested
from trainer.training.loop import Trainer
from trainer.training.optimizer import build_optimizer

_LOWEST, _HIGHEST = 1e-5, 10.0  # rates of the first and of the last step
_SMOOTHING = 0.9
_STOP_LOSS_FACTOR = 4.0  # the test ends at a loss this many times the lowest one and above the loss of guessing
_LEAST_FALL = 0.1  # relative fall of the loss that suffices to suggest a rate, whatever the noise
# A smaller relative fall, into a valley, suffices at this many times the noise: the loss's deviation at the lowest rates.
_LEAST_CLEAR_FALL, _NOISES = 0.01, 4.0
_REACH = 5  # steps to either side over which the slope of the loss is measured: over one step it is noise
_FEWEST = 10  # steps before any loss counts as the lowest: until then the average is mostly the first loss


def range_test(trainer: Trainer, poll: Callable[[float], None], *, steps: int = 100) -> LrRangeTested:
    """Run the range test between two steps of a trainer, which is left as it was.

    `poll` gets the share done before each step and while waiting for a batch, and may raise to stop.
    """
    model = copy.deepcopy(trainer.state.model)
    optimizer = build_optimizer(model, trainer.config.optim, precision=trainer.train_step.numerics.precision)
    step = trainer.train_step.copy_for(model, optimizer)
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
            lr = _LOWEST * (_HIGHEST / _LOWEST) ** (index / (steps - 1))
            step(batch, epoch=epoch, lr=lr, metrics_3=metrics_3)
            loss, skipped = float(metrics_3[0]), bool(metrics_3[2])
            if not math.isfinite(loss) or (skipped and not step.loss_scale.enabled):
                break
            if skipped:
                continue  # the scale of the loss was too large, and is halved now
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            lrs.append(lr)
            losses.append(average / (1 - _SMOOTHING ** len(lrs)))
            if len(losses) > _FEWEST and losses[-1] > max(_STOP_LOSS_FACTOR * min(losses[_FEWEST:]), chance):
                break
    finally:
        trainer.batches.close()  # workers have decoded ahead; training starts its own at its position
    suggestion, reason = suggest(lrs, losses)
    return LrRangeTested(step=trainer.state.step, lrs=lrs, losses=losses, suggestion=suggestion, reason=reason)


def suggest(lrs: Sequence[float], losses: Sequence[float]) -> tuple[float | None, str]:
    """A learning rate to train with (or None), and the reason, from rising rates and the smoothed loss at each."""
    if len(lrs) <= _FEWEST:
        last = lrs[-1] if lrs else 0.0
        return None, f"the loss became non-finite or exploded after {len(lrs)} steps, at a rate of {last:.2g}"
    # The average of the first losses is mostly noise.
    low = min(range(_FEWEST, len(losses)), key=losses.__getitem__)
    slopes = {
        middle: (losses[middle + _REACH] - losses[middle - _REACH])
        / math.log(lrs[middle + _REACH] / lrs[middle - _REACH])
        for middle in range(_REACH, min(low, len(lrs) - _REACH))
    }
    steepest = min(slopes, key=slopes.__getitem__, default=0)
    if not slopes or slopes[steepest] >= 0 or losses[low] >= losses[_REACH]:
        return None, "the loss fell at none of the rates; check the data, or start from other weights"
    fall, noise = losses[_REACH] - losses[low], statistics.pstdev(losses[_REACH : max(len(losses) // 4, _REACH + 2)])
    valley = losses[-1] - losses[low] > fall > max(_LEAST_CLEAR_FALL * losses[_REACH], _NOISES * noise)
    if fall < _LEAST_FALL * losses[_REACH] and not valley:
        moved = f"from {losses[_REACH]:.3g} to {losses[low]:.3g}"
        return None, f"the loss changed too little to suggest a rate: {moved}, noise {noise:.2g}"
    rate = float(f"{lrs[steepest]:.0e}")  # one digit: the test is no more precise than that
    end = "" if low >= len(lrs) - 2 else f", is lowest at {lrs[low]:.2g} and rises from there"
    return rate, f"the loss falls fastest at about {rate:g}{end}"


def _endless(
    trainer: Trainer, epoch_of: Callable[[int, int], Iterator[Batch | None]], waiting: Callable[[], None]
) -> Iterator[tuple[int, Batch]]:
    """Batches from the run's position on, epoch after epoch; `waiting` is called while the next one is not ready."""
    first = trainer.state.epoch_step
    for epoch in itertools.count(trainer.state.epoch):
        for batch in epoch_of(min(epoch, trainer.config.train.epochs - 1), first):
            if batch is None:
                waiting()
            else:
                yield epoch, batch
        first = 0
