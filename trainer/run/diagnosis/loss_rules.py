"""Rules about the loss: non-finite, stuck, rising, overfitting."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from trainer.run.diagnosis.finding import Verdict
from trainer.run.log.event import number
from trainer.run.view.class_score import wilson_interval
from trainer.run.view.run_view import RunView

_RECENT = 100  # recent steps whose mean is compared
_LEAST_STEPS = 200  # before the first verdict: warm-up and the first statistics of batch norm are over by then
_NONFINITE_SHARE = 0.1  # share of the recent steps: so many non-finite ones are no accident
_LEARNS_NOTHING = 0.98  # share of the first loss, or of the loss of guessing, above which nothing has been learnt
_GUESSING = 0.7  # share of the loss of guessing: a run that begins below it began with good weights
_FALLING = 0.99  # ratio to the mean of the steps before, below which the loss is falling
_RISING = 1.5  # ratio to the lowest recent mean; larger images or stronger mixing raise the loss far less
_LEAST_RISE = 0.1  # share of the loss of guessing: a loss near 0 may rise by less
_STANDARD_ERRORS = 4.0  # beyond which two means differ, also when one was chosen as the lowest of twenty
_LOOKBACK_STEPS = 2000  # steps in which the lowest mean is searched
_OVERFITTING = 1.1  # ratio to the lowest held-out loss, at three evaluations in a row, while training loss still falls
_LEAST_WORSE = 0.025  # share of the loss of guessing: on a few hundred images a loss near 0 fluctuates by as much


def not_finite(view: RunView) -> Verdict | None:
    """A loss that is NaN or infinite. The logged loss is never the scaled one, so this holds for fp16 too."""
    recent = view.train_loss.y[-_RECENT:]
    bad = sum(not math.isfinite(loss) for loss in recent)
    if not bad:
        return None
    many = bad >= _NONFINITE_SHARE * len(recent)
    return Verdict(
        kind="not finite", level="error" if many else "warning",
        text="the loss is NaN or infinite" if many else "some steps skipped: their loss is NaN or infinite",
        evidence=f"in {bad} of the last {len(recent)} steps", remedy="l sets a lower learning rate; max_grad_norm limits steps",
    )  # fmt: skip


def loss_stuck(view: RunView) -> Verdict | None:
    """A loss that stays at its first value, or at the loss of guessing."""
    losses = view.train_loss.y
    per_epoch = view.started.steps_per_epoch if view.started else 1
    if len(losses) < max(_LEAST_STEPS, per_epoch) or _rate_is_rising(view) or _better_than_guessing(view):
        return None
    first, before, now = _mean(losses[: _RECENT // 5]), _mean(losses[-2 * _RECENT : -_RECENT]), _mean(losses[-_RECENT:])
    level = min(first, _guessing_loss(view)) if first >= _GUESSING * _guessing_loss(view) else _guessing_loss(view)
    accuracy, error = _mean_and_error(view.train_accuracy.y[-_RECENT:])
    if not now >= _LEARNS_NOTHING * level or now < _FALLING * before or accuracy - 3 * error > _majority(view):
        return None
    return Verdict(
        kind="loss stuck", level="warning", text="the loss does not fall",
        evidence=f"{first:.2f} at first, {now:.2f} after {len(losses):,} steps",
        remedy="f finds a learning rate; or labels may be wrong",
    )  # fmt: skip


def loss_rising(view: RunView) -> Verdict | None:
    """A loss that has risen and stays high, with no cause but the learning rate."""
    since = bisect_right(view.train_loss.x, _last_change(view))
    losses = view.train_loss.y[max(since, len(view.train_loss) - _LOOKBACK_STEPS) :]
    if len(view.train_loss) - since < 2 * _LEAST_STEPS or _rate_is_rising(view):
        return None
    earlier = [
        _mean_and_error(losses[begin : begin + _RECENT])
        for begin in range(0, len(losses) - 2 * _LEAST_STEPS + 1, _RECENT)
    ]
    lowest, error = min((pair for pair in earlier if math.isfinite(pair[0])), default=(math.inf, 0.0))
    newest = [_mean_and_error(losses[-2 * _RECENT : -_RECENT]), _mean_and_error(losses[-_RECENT:])]
    bound = max(_RISING * lowest, lowest + _LEAST_RISE * _guessing_loss(view))
    if not all(mean > max(bound, lowest + _STANDARD_ERRORS * math.hypot(error, spread)) for mean, spread in newest):
        return None
    return Verdict(
        kind="loss rising", level="warning", text="the loss rises: the learning rate is too high",
        evidence=f"{lowest:.3g} before, {newest[-1][0]:.3g} in the last {_RECENT} steps",
        remedy="l sets a lower learning rate, f finds one",
    )  # fmt: skip


def overfitting(view: RunView) -> Verdict | None:
    """Held-out loss that rises while training loss falls, after the peak of the rate, where evaluations fluctuate."""
    peak = _peak(view)
    measured = [event for event in view.regular_evaluations if event.step >= peak and math.isfinite(number(event.loss))]
    losses = [number(event.loss) for event in measured]
    if len(losses) < 5 or not len(view.train_loss):
        return None
    best = min(range(len(losses)), key=lambda index: losses[index])
    accuracy = max(event.accuracy for event in measured[:-3])
    at_best, now = _train_loss_at(view, measured[best].step), _mean(view.train_loss.y[-_RECENT:])
    bound = max(_OVERFITTING * losses[best], losses[best] + _LEAST_WORSE * _guessing_loss(view))
    risen = best < len(losses) - 3 and all(loss > bound for loss in losses[-3:])
    if not risen or not now < at_best or any(event.accuracy > accuracy for event in measured[-3:]):
        return None
    split = view.selection_split
    return Verdict(
        kind="overfitting", level="warning", text=f"overfitting: {split} gets worse while training improves",
        evidence=f"{split} loss {losses[best]:.3f} at epoch {measured[best].epoch:g}, now {losses[-1]:.3f}; "
        f"train {at_best:.3f}, now {now:.3f}",
        remedy="best is saved; next time, more augmentation or weight decay",
    )  # fmt: skip


def _guessing_loss(view: RunView) -> float:
    """Cross-entropy of a uniform prediction: the logarithm of the number of classes."""
    return math.log(max(len(view.started.classes) if view.started else 0, 2))


def _majority(view: RunView) -> float:
    """Accuracy of always predicting the most frequent class, as far as known."""
    last = view.last_evaluation
    if last is not None and any(last.counts):
        return max(last.counts) / sum(last.counts)
    return 1.0 / max(len(view.started.classes) if view.started else 0, 2)


def _better_than_guessing(view: RunView) -> bool:
    """Whether held-out accuracy is better than guessing: then something was learnt, whatever the loss."""
    last = view.last_evaluation
    if last is None or not any(last.counts):
        return False
    return wilson_interval(sum(last.correct), sum(last.counts))[0] > _majority(view)


def _rate_is_rising(view: RunView) -> bool:
    """Whether the warm-up is under way, or has just ended."""
    rates = view.lr.y[-_LEAST_STEPS:]
    return len(rates) > 0 and rates[-1] > rates[0]


def _last_change(view: RunView) -> float:
    """The newest step of an event that changes the loss: a resume, an edit, other frozen stages, another image size."""
    changes = [float(mark.step) for mark in view.marks if mark.kind in ("resume", "lr")]
    changes += [float(begin) for begin, _, _ in view.image_sizes() if begin <= view.step]
    return max([0.0, *changes, *([float(view.frozen.step)] if view.frozen else [])])


def _peak(view: RunView) -> float:
    """Step of the highest planned learning rate so far."""
    steps, rates = view.planned_lr()
    so_far = [(rate, -step) for step, rate in zip(steps, rates, strict=True) if step <= view.step]
    return -max(so_far)[1] if so_far else 0.0


def _train_loss_at(view: RunView, step: int) -> float:
    end = bisect_right(view.train_loss.x, step)
    return _mean(view.train_loss.y[max(end - _RECENT, 0) : end])


def _mean(values: Sequence[float]) -> float:
    """Mean of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    mean = _mean(values)
    variance = _mean([(value - mean) ** 2 for value in values])
    return mean, math.sqrt(variance / max(len(values), 1))
