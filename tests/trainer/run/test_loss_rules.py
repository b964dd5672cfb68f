"""Rules about the loss, on both sides of each threshold, and with each condition violated alone.

ln 10 = 2.3026 is the loss of guessing among the ten classes of these runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest

from tests.support.diagnosed import PER_EPOCH, evaluation, started, view_of
from trainer.run.diagnosis.loss_rules import loss_rising, loss_stuck, not_finite, overfitting
from trainer.run.log.event import Event
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import LrEdited, NoteAdded, Opened, Resumed, StagesFrozen
from trainer.run.view.run_view import RunView

GUESS = math.log(10)


def trained(
    losses: Sequence[float | None], *, accuracy: Sequence[float] | float = 0.1, lr: Sequence[float] | float = 0.1,
    per_epoch: int = PER_EPOCH, classes: int = 10, before: Sequence[Event] = (), between: Sequence[Event] = (), at: int = 0,
    then: Sequence[Event] = (),
) -> RunView:  # fmt: skip
    """A run of `len(losses)` steps, with events before its start, after step `at`, and then after the last step."""
    accuracies = [accuracy] * len(losses) if isinstance(accuracy, float) else list(accuracy)
    rates = [lr] * len(losses) if isinstance(lr, float) else list(lr)
    parts = [
        Steps(
            first_step=begin + 1, loss=list(losses[begin:end]), accuracy=accuracies[begin:end], lr=rates[begin:end],
            images=8 * (end - begin), seconds=1.0,
        )
        for begin, end in ((0, at), (at, len(losses))) if end > begin
    ]  # fmt: skip
    first = started(classes, 100, steps_per_epoch=per_epoch, total_steps=100 * per_epoch)
    return view_of([*before, first, *parts[: bool(at)], *between, *parts[bool(at) :], *then])


# Non-finite steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "steps", "level", "evidence"),
    [
        ([], 300, None, ""),
        ([200], 300, None, ""),  # longer ago than 100 steps
        ([201], 300, "warning", "in 1 of the last 100 steps"),
        ([300], 300, "warning", "in 1 of the last 100 steps"),
        (range(292, 301), 300, "warning", "in 9 of the last 100 steps"),
        (range(291, 301), 300, "error", "in 10 of the last 100 steps"),
        ([7], 20, "warning", "in 1 of the last 20 steps"),
        ([7, 8], 20, "error", "in 2 of the last 20 steps"),
    ],
)
def test_non_finite_steps_are_an_error_from_a_tenth_on(
    bad: Sequence[int], steps: int, level: str | None, evidence: str
) -> None:
    verdict = not_finite(trained([None if n in bad else 1.0 for n in range(1, steps + 1)]))
    assert (verdict.level if verdict else None) == level
    if verdict:
        assert verdict.evidence == evidence
        assert (verdict.text == "the loss is NaN or infinite") is (level == "error")


# Stuck loss -----------------------------------------------------------------------------------------------------------


def stuck(*spans: tuple[int, float], **changes: object) -> bool:
    """Whether a loss is stuck, given as numbers of steps and their values."""
    losses = [value for count, value in spans for _ in range(count)]
    return loss_stuck(trained(losses, **changes)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "per_epoch", "expected"), [(200, 50, True), (199, 50, False), (300, 300, True), (299, 300, False)]
)
def test_a_loss_is_stuck_from_200_steps_and_an_epoch_on(steps: int, per_epoch: int, expected: bool) -> None:
    assert stuck((steps, GUESS), per_epoch=per_epoch) is expected


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        (2.31, 0.981 * GUESS, True), (2.31, 0.979 * GUESS, False),  # relative to guessing
        (8.0, 0.981 * GUESS, True), (8.0, 0.979 * GUESS, False),  # overshoots and stays at guessing
        (1.7, 0.981 * 1.7, True), (1.7, 0.979 * 1.7, False),  # relative to the first loss, if that is at least 0.7 of guessing
        (0.71 * GUESS, 0.71 * GUESS, True), (0.69 * GUESS, 0.69 * GUESS, False),  # good initial weights
        (0.69 * GUESS, 0.981 * GUESS, True), (0.69 * GUESS, 0.979 * GUESS, False),  # good initial weights that are lost again
    ],
)  # fmt: skip
def test_a_loss_at_98_pct_of_its_start_or_of_guessing_is_stuck(first: float, then: float, expected: bool) -> None:
    assert stuck((20, first), (280, then)) is expected


@pytest.mark.parametrize(("now", "expected"), [(0.991 * 2.4, True), (0.989 * 2.4, False)])
def test_a_loss_that_falls_by_a_hundredth_is_not_stuck(now: float, expected: bool) -> None:
    assert stuck((200, 2.4), (100, now)) is expected


def test_the_first_twenty_steps_are_the_start() -> None:
    assert stuck((20, 1.7), (80, 9.0), (200, 1.7))
    assert not stuck((19, 1.7), (81, 9.0), (200, 1.7)), "then relative to guessing"


@pytest.mark.parametrize(("warm_up", "expected"), [(200, True), (202, False), (400, False)])
def test_a_loss_is_not_stuck_during_warm_up_and_200_steps_after(warm_up: int, expected: bool) -> None:
    assert stuck((400, GUESS), lr=[min(n / warm_up, 1.0) for n in range(400)]) is expected


def noisy(middle: float) -> list[float]:
    """Accuracies whose mean of 100 steps has a standard error of 0.01."""
    return [middle - 0.1, middle + 0.1] * 150


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [([0.1] * 300, True), ([0.1] * 299 + [0.2], True), (noisy(0.129), True), (noisy(0.131), False), ([0.2] * 300, False)],
)  # fmt: skip
def test_training_accuracy_beyond_chance_is_not_a_stuck_loss(accuracy: list[float], expected: bool) -> None:
    assert stuck((300, GUESS), accuracy=accuracy) is expected


def test_training_accuracy_counts_only_in_the_last_100_steps() -> None:
    assert stuck((300, GUESS), accuracy=[0.9] * 200 + [0.1] * 100)


def evaluated(correct: list[int], counts: list[int]) -> Event:
    accuracy = sum(correct) / max(sum(counts), 1)
    return evaluation(1, GUESS, accuracy, len(counts), correct=correct, counts=counts, predicted=[], confusions=[])


@pytest.mark.parametrize(
    ("correct", "counts", "expected"),
    [
        # The lower end of Wilson's interval of 118 of 1000 is 0.0995, that of 119 is 0.1004.
        ([11] * 8 + [15] * 2, [100] * 10, True), ([11] * 8 + [15, 16], [100] * 10, False),
        ([890, 0], [900, 100], True), ([900, 30], [900, 100], False),  # the most frequent class is 90 %
        ([0] * 10, [0] * 10, True),  # no images
    ],
)  # fmt: skip
def test_held_out_accuracy_beyond_chance_is_not_a_stuck_loss(
    correct: list[int], counts: list[int], expected: bool
) -> None:
    classes = len(counts)
    level, accuracy = math.log(classes), 0.85 if classes == 2 else 0.1
    then = [evaluated(correct, counts)]
    assert stuck((300, level), classes=classes, accuracy=accuracy, then=then) is expected


def test_the_most_frequent_class_is_taken_from_the_evaluation() -> None:
    frequent = [evaluated([900, 0], [900, 100])]
    assert stuck((300, math.log(2)), classes=2, accuracy=0.89, then=frequent)
    assert not stuck((300, math.log(2)), classes=2, accuracy=0.91, then=frequent)
    assert not stuck((300, math.log(2)), classes=2, accuracy=0.89), "without an evaluation, half is guessing"


def test_a_loss_of_only_nan_is_not_a_stuck_loss() -> None:
    assert loss_stuck(trained([GUESS] * 200 + [None] * 100)) is None
    assert loss_stuck(trained([GUESS] * 200 + [None] * 99 + [GUESS])) is not None


# Rising loss ----------------------------------------------------------------------------------------------------------


def rises(*spans: tuple[int, float], **changes: object) -> bool:
    """Whether a loss rises, given as numbers of steps and their values."""
    losses = [value for count, value in spans for _ in range(count)]
    return loss_rising(trained(losses, **changes)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 1.51, True), (1.0, 1.49, False),  # by half
        (0.1, 0.1 + 0.101 * GUESS, True), (0.1, 0.1 + 0.099 * GUESS, False),  # a tenth of the loss of guessing
    ],
)  # fmt: skip
def test_a_loss_rises_by_half_and_by_a_tenth_of_guessing(low: float, high: float, expected: bool) -> None:
    assert rises((200, low), (200, high)) is expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        (((199, 1.0), (200, 2.0)), False),  # 400 steps at least
        (((300, 1.0), (100, 2.0)), False),  # for 200 steps
        (((200, 1.0), (100, 2.0), (100, 1.0)), False),  # until now
        (((100, 1.0), (300, 2.0)), True),
        (((100, 9.0), (100, 1.0), (300, 2.0)), True),  # the lowest counts, wherever it is
        (((100, 1.0), (100, 9.0), (300, 2.0)), True),
        (((100, 1.0), (1900, 2.0)), True), (((100, 1.0), (2000, 2.0)), False),  # within 2,000 steps
    ],
)  # fmt: skip
def test_a_loss_rises_for_200_steps_above_its_lowest(spans: tuple[tuple[int, float], ...], expected: bool) -> None:
    assert rises(*spans) is expected


def test_a_loss_rises_only_beyond_four_standard_errors() -> None:
    # A hundred values 3 +- 9 (90 zeros, 10 thirties) have a standard error of 0.9; 3 + 4 * 0.9 = 6.6.
    scattered = [0.0] * 9 + [30.0]
    for high, expected in ((6.7, True), (6.5, False)):
        assert (loss_rising(trained(scattered * 20 + [high] * 200)) is not None) is expected
    # The errors of both add in quadrature: 0.9 and 0.9 give 1.273; 3 + 4 * 1.273 = 8.09.
    for by, expected in ((5.2, True), (5.0, False)):
        losses = scattered * 20 + [value + by for value in scattered * 20]
        assert (loss_rising(trained(losses)) is not None) is expected


@pytest.mark.parametrize(("warm_up", "expected"), [(200, True), (202, False)])
def test_a_rise_during_warm_up_is_not_reported(warm_up: int, expected: bool) -> None:
    assert rises((200, 1.0), (200, 2.0), lr=[min(n / warm_up, 1.0) for n in range(400)]) is expected


SIZES = Opened(
    run="m", directory="m", pid=1, host="h", resume=False, config={"data": {"progressive": [[16, 6]], "image_size": 32}}
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"between": [NoteAdded(step=300, text="x")]}, True),
        ({"between": [Resumed(step=300, epoch=6, checkpoint="c")]}, False),
        ({"between": [LrEdited(step=300, factor=0.5, lr=0.05)]}, False),
        ({"between": [StagesFrozen(step=300, stages=[], trainable=1)]}, False),
        ({"before": [SIZES]}, False),  # six epochs of 50 steps with smaller images
    ],
    ids=["nothing", "note", "resume", "rate", "stage", "size"],
)
def test_a_rise_after_a_change_is_not_reported(change: dict[str, list[Event]], expected: bool) -> None:
    assert rises((300, 1.0), (400, 2.0), at=300, **change) is expected
    assert rises((300, 1.0), (200, 1.0), (200, 2.0), at=300, **change), "reported again 400 steps later"


def test_a_future_change_does_not_excuse_a_rise() -> None:
    later = Opened(run="m", directory="m", pid=1, host="h", resume=False, config={"data": {"progressive": [[16, 20]]}})
    assert rises((300, 1.0), (400, 2.0), before=[later])


# Overfitting ----------------------------------------------------------------------------------------------------------

Held = tuple[float | None, float]
GOOD: list[Held] = [(1.3, 0.5), (1.2, 0.5), (1.0, 0.6), (1.05, 0.5), (1.2, 0.5), (1.2, 0.5), (1.2, 0.5)]
"""Loss and accuracy at the ends of seven epochs: 1.0 is the lowest loss, and the last three are a fifth above it."""


def overfits(
    held_out: Sequence[Held] = GOOD, *, falls: float = 0.1, peak: int | None = None, trigger: str = "epoch", classes: int = 10
) -> bool:  # fmt: skip
    """Whether a run overfits.

    Args:
        falls: Decrease of the training loss per epoch.
        peak: Step of the highest planned rate.
        trigger: Trigger of the last evaluation.
    """
    plan = [[0.0, float(peak)], [0.01, 0.1]] if peak is not None else [[], []]
    events: list[Event] = [started(classes, planned_lr=plan)]
    for epoch, (loss, accuracy) in enumerate(held_out, 1):
        level = 3.0 - falls * epoch
        first = (epoch - 1) * PER_EPOCH + 1
        events.append(Steps(
            first_step=first, loss=[level] * PER_EPOCH, accuracy=[0.5] * PER_EPOCH, lr=[0.1] * PER_EPOCH, images=400,
            seconds=1.0,
        ))  # fmt: skip
        last = epoch == len(held_out)
        event = evaluation(epoch, 1.0, accuracy, classes, trigger=trigger if last else "epoch")
        events.append(dataclasses.replace(event, loss=loss))
    return overfitting(view_of(events)) is not None


def with_last(*losses: float | None) -> list[Held]:
    return [*GOOD[:-3], *((loss, 0.5) for loss in losses)]


def test_a_run_overfits_where_all_conditions_are_met() -> None:
    assert overfits()
    assert not overfits(falls=-0.1), "the training loss rises, too"
    assert not overfits(falls=0.0), "the training loss does not fall"


@pytest.mark.parametrize("place", range(3))
def test_all_of_the_last_three_must_be_worse_by_a_tenth(place: int) -> None:
    for loss, expected in ((1.11, True), (1.09, False)):
        losses = [1.2, 1.2, 1.2]
        losses[place] = loss
        assert overfits(with_last(*losses)) is expected


@pytest.mark.parametrize(("loss", "expected"), [(0.1 + 0.026 * GUESS, True), (0.1 + 0.024 * GUESS, False)])
def test_a_tiny_loss_must_be_worse_by_a_fortieth_of_guessing(loss: float, expected: bool) -> None:
    held_out = [*GOOD[:2], (0.1, 0.6), *GOOD[3:4], *[(loss, 0.5)] * 3]
    assert overfits(held_out) is expected


@pytest.mark.parametrize("place", range(3))
def test_a_new_best_accuracy_is_not_overfitting(place: int) -> None:
    for accuracy, expected in ((0.6, True), (0.61, False)):
        held_out = [*GOOD]
        held_out[place - 3] = (1.2, accuracy)
        assert overfits(held_out) is expected


def test_overfitting_needs_five_evaluations_and_an_earlier_lowest_loss() -> None:
    assert overfits(GOOD[2:])
    assert not overfits(GOOD[3:]), "only four"
    assert not overfits([*GOOD[:3], (1.3, 0.5), *GOOD[3:-2], (0.99, 0.5)]), "the lowest is the last"
    assert not overfits(with_last(0.9, 1.2, 1.2)), "the lowest is the third from the end"


def test_evaluations_by_key_and_non_finite_ones_do_not_count() -> None:
    assert overfits(trigger="epoch")
    assert not overfits(trigger="key"), "the last three are then 1.05, 1.2 and 1.2"
    assert overfits([*GOOD[:1], (None, 0.5), *GOOD[2:]])
    assert not overfits(with_last(1.2, 1.2, None)), "only two of the last three count"


@pytest.mark.parametrize(("peak", "expected"), [(0, True), (150, True), (151, False)])
def test_evaluations_count_from_the_peak_rate_on(peak: int, expected: bool) -> None:
    # The third epoch, of the lowest loss, ends at step 150; five evaluations are left from there on.
    assert overfits(peak=peak) is expected
