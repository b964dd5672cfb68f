"""What is wrong with a run, as far as its log tells: few verdicts, each with its evidence and what to do about it.

Every rule is a pure function of the folded run. It speaks only when the evidence is beyond chance and beyond what healthy runs
show on their way (`tests/trainer/test_verdicts.py` holds each against a run that has the fault and all against healthy ones).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.class_score import scores_of
from trainer.run.events import number
from trainer.run.status import RunState
from trainer.run.view import RunView

_RECENT = 100
"""Steps whose mean is compared."""

_LEAST_STEPS = 200
"""Before which nothing is said of the loss: warm-up and batch norm's first statistics are over by then."""

_LEARNS_NOTHING = 0.98
"""Of the first loss: above it nothing has been learnt."""

_GUESSING = 0.7
"""Of the loss of guessing: a run that begins below it began with good weights."""

_RISING = 1.5
"""Times its lowest recent mean: a loss that high has left its way. A larger image size, or stronger mixing, makes far less."""

_LEAST_RISE = 0.1
"""Of the loss of guessing: what rises by less from nearly nothing is no matter."""

_LOOKED_BACK = 2000
"""Steps in which that lowest mean is looked for."""

_OVERFITTING = 1.1
"""Times its lowest, for three evaluations in a row, while training loss goes on to fall."""

WAITING_SHARE = 0.15
"""Of the time of steps: a run that waits longer is held up by its data."""

_LEAST_BUDGET_S = 30.0
"""Before which shares of the time say nothing: the first batches come from a cold start."""

_FULL = 0.95
"""Of memory."""

_LEARNT_IN_GENERAL = 0.5
"""Accuracy from which on single classes can be told to lag."""

_NOT_LEARNT = 0.05
"""Recall at most, at three evaluations in a row."""

_SWAPPED = 0.5
"""Least share of each of two classes that is taken for the other."""

_CHOICES = 10
"""Evaluations from which on the best of them is better than it is on other images."""

_LEAST_IMAGES = 20
"""Of a class, to judge it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Something that the user should look at.

    Attributes:
        kind: Name of the rule.
        level: `error`, `warning` or `info`.
        text: What is the matter.
        evidence: The numbers behind it.
        remedy: What to do, with the key that does it where there is one.
    """

    kind: str
    level: str
    text: str
    evidence: str
    remedy: str


def verdicts(view: RunView) -> list[Verdict]:
    """All that can be said of a run now, the worst first."""
    if view.started is None or view.state in (RunState.FAILED, RunState.LOADING, RunState.PREPARING):
        return []
    found = [verdict for rule in _RULES if (verdict := rule(view)) is not None]
    return sorted(found, key=lambda verdict: ("error", "warning", "info").index(verdict.level))


def _not_finite(view: RunView) -> Verdict | None:
    recent = view.train_loss.y[-_RECENT:]
    bad = sum(not math.isfinite(loss) for loss in recent)
    if not bad or (
        view.started and view.started.choices.get("precision") == "fp16"
    ):  # there it is how the scale is found
        return None
    return Verdict(
        kind="not finite", level="error", text="the loss is not a number",
        evidence=f"in {bad} of the last {len(recent)} steps", remedy="l sets a lower rate; max_grad_norm tames single batches",
    )  # fmt: skip


def _loss_stuck(view: RunView) -> Verdict | None:
    losses = view.train_loss.y
    per_epoch = view.started.steps_per_epoch if view.started else 1
    if len(losses) < max(_LEAST_STEPS, per_epoch) or _rate_is_rising(view):
        return None
    first, now = _mean(losses[: _RECENT // 5]), _mean(losses[-_RECENT:])
    accuracy, spread = _mean_and_error(view.train_accuracy.y[-_RECENT:])
    guessing = _mean(view.train_accuracy.y[: _RECENT // 5])
    if (
        first < _GUESSING * _guessing_loss(view)
        or not now >= _LEARNS_NOTHING * first
        or accuracy - 3 * spread > guessing
    ):
        return None
    return Verdict(
        kind="loss stuck", level="warning", text="the loss does not fall",
        evidence=f"{first:.2f} at first, {now:.2f} after {len(losses):,} steps",
        remedy="f finds a rate; wrong labels look the same",
    )  # fmt: skip


def _loss_rising(view: RunView) -> Verdict | None:
    losses = view.train_loss.y[-_LOOKED_BACK:]
    if len(view.train_loss) < 2 * _LEAST_STEPS:
        return None
    now = _mean(losses[-_RECENT:])
    means = [_mean(losses[begin : begin + _RECENT]) for begin in range(0, len(losses) - _LEAST_STEPS, _RECENT)]
    lowest = min((mean for mean in means if math.isfinite(mean)), default=math.inf)
    if not now > max(_RISING * lowest, lowest + _LEAST_RISE * _guessing_loss(view)):
        return None
    return Verdict(
        kind="loss rising", level="warning", text="the loss rises: the rate is too high",
        evidence=f"{lowest:.3g} before, {now:.3g} in the last {_RECENT} steps", remedy="l sets a lower rate, f finds one",
    )  # fmt: skip


def _overfitting(view: RunView) -> Verdict | None:
    measured = [event for event in view.evaluations if event.split == view.selection_split and event.trigger != "key"]
    losses = [number(event.loss) for event in measured]
    if len(losses) < 5 or not len(view.train_loss):
        return None
    best = min(range(len(losses)), key=lambda index: losses[index])
    last, accuracy = losses[-3:], max(event.accuracy for event in measured[:-3])
    at_best = _train_loss_at(view, measured[best].step)
    now = _mean(view.train_loss.y[-_RECENT:])
    risen = best < len(losses) - 3 and all(loss > _OVERFITTING * losses[best] for loss in last)
    if not risen or not now < at_best or any(event.accuracy > accuracy for event in measured[-3:]):
        return None
    split = view.selection_split
    return Verdict(
        kind="overfitting", level="warning", text=f"overfitting: {split} gets worse while training gets better",
        evidence=f"{split} loss {losses[best]:.3f} at epoch {measured[best].epoch:g}, now {losses[-1]:.3f}; "
        f"train {at_best:.3f}, now {now:.3f}",
        remedy="the best is saved; more augmentation or weight decay next time",
    )  # fmt: skip


def _data_bound(view: RunView) -> Verdict | None:
    waiting, computing = view.budget.get("data", 0.0), view.budget.get("compute", 0.0)
    total = waiting + computing
    if total < _LEAST_BUDGET_S or waiting < WAITING_SHARE * total:
        return None
    return Verdict(
        kind="data-bound", level="warning", text="training waits for data",
        evidence=f"{waiting / total:.0%} of the time of steps", remedy="more data.workers, or data.cache=ram",
    )  # fmt: skip


def _memory_full(view: RunView) -> Verdict | None:
    readings = view.readings
    for used, total, what, remedy in (
        (
            "device_used_bytes",
            "device_total_bytes",
            "the device's memory",
            "a smaller batch, or train.grad_accum_steps",
        ),
        ("system_used_bytes", "system_total_bytes", "this machine's memory", "fewer data.workers, or data.cache=none"),
    ):
        share = readings.get(used, 0.0) / readings.get(total, math.inf)
        if share >= _FULL:
            evidence = f"{readings[used] / 2**30:.1f} of {readings[total] / 2**30:.1f} GiB"
            return Verdict(
                kind="memory", level="warning", text=f"{what} is nearly full", evidence=evidence, remedy=remedy
            )
    return None


def _labels_swapped(view: RunView) -> Verdict | None:
    last = view.last_evaluation
    if last is None or view.started is None or not last.confusions or last.accuracy < _LEARNT_IN_GENERAL:
        return None
    scores = scores_of(last)
    for label, score in enumerate(scores):
        for other, count in score.confusions[:1]:
            back = dict(scores[other].confusions).get(label, 0)
            there = scores[other]
            if min(score.images, there.images) < _LEAST_IMAGES or other < label:
                continue
            if count >= _SWAPPED * score.images and back >= _SWAPPED * there.images:
                names = view.started.classes
                return Verdict(
                    kind="labels swapped", level="warning", text=f"{names[label]} and {names[other]} look swapped",
                    evidence=f"{count / score.images:.0%} and {back / there.images:.0%} are taken for the other",
                    remedy=f"compare their folders in train and {last.split}",
                )  # fmt: skip
    return None


def _class_not_learnt(view: RunView) -> Verdict | None:
    measured = [event for event in view.evaluations[-16:] if event.split == view.selection_split][-3:]
    if len(measured) < 3 or view.started is None or min(event.accuracy for event in measured) < _LEARNT_IN_GENERAL:
        return None
    lagging = [
        label
        for label, images in enumerate(measured[-1].counts)
        if images >= _LEAST_IMAGES
        and all(event.correct[label] <= _NOT_LEARNT * event.counts[label] for event in measured)
    ]
    if not lagging:
        return None
    names = ", ".join(view.started.classes[label] for label in lagging[:3]) + (", ..." if len(lagging) > 3 else "")
    last, first = measured[-1], lagging[0]
    return Verdict(
        kind="class not learnt", level="warning", text=f"not learnt: {names}",
        evidence=f"{last.correct[first]} of {last.counts[first]:,} recognised, at three evaluations",
        remedy="6 shows what it is taken for; data.balance weighs rare classes",
    )  # fmt: skip


def _chosen_on_test(view: RunView) -> Verdict | None:
    choices = sum(event.split == "test" for event in view.evaluations)
    if view.selection_split != "test" or choices < _CHOICES:
        return None
    return Verdict(
        kind="chosen on test", level="info", text="the best is chosen on the test images, which flatters it",
        evidence=f"best of {choices} evaluations", remedy="data.val_fraction=0.1 keeps them apart",
    )  # fmt: skip


def _guessing_loss(view: RunView) -> float:
    """Cross-entropy of an answer that knows nothing: the logarithm of the number of classes."""
    return math.log(max(len(view.started.classes) if view.started else 0, 2))


def _rate_is_rising(view: RunView) -> bool:
    """Whether the warm-up is under way, or was until a short while ago."""
    rates = view.lr.y[-_LEAST_STEPS:]
    return len(rates) > 0 and rates[-1] > rates[0]


def _train_loss_at(view: RunView, step: int) -> float:
    end = bisect_right(view.train_loss.x, step)
    return _mean(view.train_loss.y[max(end - _RECENT, 0) : end])


def _mean(values: Sequence[float]) -> float:
    """Of those that are finite; NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    mean = _mean(values)
    variance = _mean([(value - mean) ** 2 for value in values])
    return mean, math.sqrt(variance / max(len(values), 1))


_RULES: tuple[Callable[[RunView], Verdict | None], ...] = (
    _not_finite,
    _loss_rising,
    _loss_stuck,
    _overfitting,
    _labels_swapped,
    _class_not_learnt,
    _data_bound,
    _memory_full,
    _chosen_on_test,
)
