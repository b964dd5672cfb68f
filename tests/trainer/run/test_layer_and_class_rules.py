"""Rules about layers and classes, on both sides of each threshold."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.diagnosed import PER_EPOCH, evaluation, layers, started, steps, view_of
from trainer.run.diagnosis.class_rules import class_not_learnt, labels_swapped, selected_on_test
from trainer.run.diagnosis.layer_rules import dead_layer, exploding_layer
from trainer.run.log.event import Event
from trainer.run.log.result_events import LayersMeasured
from trainer.run.log.run_events import Opened

# Dead layers ----------------------------------------------------------------------------------------------------------


def dead(*shares: dict[str, float], split: str = "val") -> str:
    """The verdict on shares of silent channels, given for each evaluation."""
    evaluations = [
        evaluation(epoch, 1.0, 0.5, silent=silent, split=split if epoch == len(shares) else "val")
        for epoch, silent in enumerate(shares, 1)
    ]
    verdict = dead_layer(view_of([started(), *evaluations]))
    return verdict.text if verdict else ""


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (0.9, 0.9, True), (0.9, 0.89, False), (0.89, 0.9, False), (1.0, 1.0, True), (None, 1.0, False), (1.0, None, False),
    ],
)  # fmt: skip
def test_a_layer_is_dead_with_nine_tenths_of_silent_channels_twice(
    before: float | None, now: float | None, expected: bool
) -> None:
    shares = [{} if share is None else {"a": share} for share in (before, now)]
    assert dead(*shares) == ("dead: a" if expected else "")


def test_the_two_newest_evaluations_on_the_selection_split_decide() -> None:
    assert dead({"a": 1.0}) == ""
    assert dead({"a": 0.0}, {"a": 1.0}, {"a": 1.0}) == "dead: a"
    assert dead({"a": 1.0}, {"a": 0.0}, {"a": 1.0}) == dead({"a": 1.0}, {"a": 1.0}, {"a": 0.0}) == ""
    assert dead({"a": 0.0}, {"a": 1.0}, {"a": 1.0}, split="test") == ""


def test_three_layers_are_named_and_others_counted() -> None:
    names = ["a", "b", "c", "d", "e"]
    for count, text in ((2, "dead: a, b"), (3, "dead: a, b, c"), (5, "dead: a, b, c and 2 more")):
        assert dead(*[dict.fromkeys(names[:count], 1.0)] * 2) == text


# Exploding layers: norm 10 and rate 0.1, so a gradient of 30 changes it by 30 % ------------------------------------------


def explodes(
    *gradients: float | None, optimizer: str | None = None, rates: dict[int, float] | None = None, weight: float = 10.0
) -> bool:
    """Whether a layer explodes with these gradients, given for each epoch; `rates` are those by step other than 0.1."""
    config = {"optim": {"name": optimizer}}
    events: list[Event] = [] if optimizer is None else [
        Opened(run="m", directory="m", pid=1, host="h", resume=False, config=config)
    ]  # fmt: skip
    events.append(started())
    for epoch, gradient in enumerate(gradients, 1):
        numbers = range((epoch - 1) * PER_EPOCH + 1, epoch * PER_EPOCH + 1)
        lr = [(rates or {}).get(n, 0.1) for n in numbers]
        events.append(steps(epoch, lambda _: 1.0, lambda _: 0.5, lr=lr))
        stats = layers(epoch, gradient=gradient)
        events.append(LayersMeasured(**{**vars(stats), "weight_norms": [3.0, weight]}))
    return exploding_layer(view_of(events)) is not None


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        ((31.0, 31.0), True), ((45.0, 31.0), True), ((29.0, 31.0), False), ((5.0, 45.0), False), ((31.0, 29.0), False),
        ((31.0,), False), ((31.0, 29.0, 31.0), False), ((29.0, 31.0, 31.0), True), ((31.0, None), False),
        ((None, 31.0), False),
    ],
)  # fmt: skip
def test_a_layer_explodes_with_steps_of_three_tenths_of_its_norm_twice(
    gradients: tuple[float | None, ...], expected: bool
) -> None:
    assert explodes(*gradients) is expected


@pytest.mark.parametrize(
    ("optimizer", "expected"), [(None, True), ("sgd", True), ("muon", False)], ids=["default", "sgd", "muon"]
)
def test_exploding_layers_are_reported_only_with_sgd(optimizer: str | None, expected: bool) -> None:
    assert explodes(31.0, 31.0, optimizer=optimizer) is expected


def test_an_exploding_layer_is_judged_by_the_rate_of_the_step_and_the_norm() -> None:
    others = {n: 0.001 for n in range(1, 101) if n not in (50, 100)}
    assert explodes(31.0, 31.0, rates=others)
    assert not explodes(31.0, 31.0, rates={100: 0.001})
    assert not explodes(31.0, 31.0, rates={50: 0.001})
    assert not explodes(31.0, 31.0, weight=0.0)
    assert not explodes(31.0, 31.0, weight=11.0)


# Swapped labels -------------------------------------------------------------------------------------------------------


def swapped(
    as_second: int = 60, as_first: int = 60, *, before: tuple[int, int] = (40, 40), others: int = 80, images: int = 100,
    classes: int = 4, confusions: bool = True,
) -> bool:  # fmt: skip
    """Whether the first two classes look swapped.

    Args:
        as_second: Images of class 0 predicted as class 1 in the last evaluation.
        as_first: Images of class 1 predicted as class 0.
        before: Right answers of both in the previous evaluation.
        others: Right answers of each of the other classes.
        images: Number of images of class 0; the other classes have 100.
    """
    correct = [images - as_second, 100 - as_first, *[others] * (classes - 2)]
    counts = [images, *[100] * (classes - 1)]
    taken = [[1, as_second], [0, as_first], *([] for _ in range(classes - 2))]
    last = evaluation(2, 0.5, 0.5, classes, correct=correct, counts=counts, confusions=taken if confusions else [])
    first = evaluation(1, 0.5, 0.5, classes, correct=[*before, *[others] * (classes - 2)])
    return labels_swapped(view_of([started(classes), first, last])) is not None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"as_second": 59}, False), ({"as_first": 59}, False),  # Wilson's interval of 60 of 100 begins at 0.502, of 59 at 0.492
        ({"images": 20, "as_second": 20}, True), ({"images": 19, "as_second": 19}, False),
        ({"before": (49, 49)}, True), ({"before": (50, 49)}, False), ({"before": (49, 50)}, False),
        ({"confusions": False}, False),
        # With exchanged labels, 60 + 60 of the two and 2 * others of the rest would be right, of 400.
        ({"others": 40}, True), ({"others": 39}, False),
    ],
)  # fmt: skip
def test_classes_look_swapped_where_most_of_both_are_confused_twice(change: dict[str, int], expected: bool) -> None:
    assert swapped(**change) is expected  # type: ignore[arg-type]


def test_one_evaluation_is_not_enough_to_call_labels_swapped() -> None:
    last = evaluation(2, 0.5, 0.5, 4, correct=[40, 40, 80, 80], confusions=[[1, 60], [0, 60], [], []])
    assert labels_swapped(view_of([started(4), last])) is None
    assert labels_swapped(view_of([started(4), evaluation(1, 0.5, 0.5, 4, correct=[40, 40, 80, 80]), last])) is not None
    assert labels_swapped(view_of([evaluation(1, 0.5, 0.5, 4, correct=[40, 40, 80, 80]), last])) is None, (
        "without `started`"
    )


def test_the_most_frequent_confusion_decides_and_the_pair_is_named_once() -> None:
    first = evaluation(1, 0.5, 0.5, 4, correct=[40, 40, 80, 80])
    ring = [[1, 60], [2, 60], [0, 60], []]  # three classes in a ring are not a swapped pair
    assert (
        labels_swapped(view_of([started(4), first, evaluation(2, 0.5, 0.5, 4, correct=[40] * 4, confusions=ring)]))
        is None
    )
    pair = [[], [3, 60, 0, 10], [], [1, 62]]
    last = evaluation(2, 0.5, 0.5, 4, correct=[80, 30, 80, 38], confusions=pair)
    first = evaluation(1, 0.5, 0.5, 4, correct=[80, 40, 80, 40])
    verdict = labels_swapped(view_of([started(4), first, last]))
    assert verdict is not None
    assert verdict.text == "class 1 and class 3 look swapped"
    assert verdict.evidence == "60% and 62% are predicted as the other"


# Unlearned classes: in a run of 20 epochs, the first third ends within the seventh ---------------------------------------


def not_learnt(
    *correct: int, first: int = 7, count: int = 100, others: int = 80, triggers: Sequence[str] = (), all_lag: bool = False
) -> str:  # fmt: skip
    """The verdict on a class with these right answers, given for each evaluation."""
    evaluations = [
        evaluation(
            first + index, 0.5, 0.5, 4, correct=[others if not all_lag else 0, right, others if not all_lag else 0, 0],
            counts=[100, count, 100, 0], predicted=[], confusions=[],
            trigger=triggers[index] if triggers else "epoch",
        )
        for index, right in enumerate(correct)
    ]  # fmt: skip
    verdict = class_not_learnt(view_of([started(4), *evaluations]))
    return verdict.text if verdict else ""


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        ((5, 5, 5), True), ((6, 5, 5), False), ((5, 6, 5), False), ((5, 5, 6), False), ((5, 5), False),
        ((60, 5, 5, 5), True), ((0, 0, 0), True),
    ],
)  # fmt: skip
def test_a_class_is_unlearned_with_a_twentieth_recognised_three_times(correct: tuple[int, ...], expected: bool) -> None:
    assert not_learnt(*correct) == ("not learnt: class 1" if expected else "")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"first": 7}, True), ({"first": 6}, False),  # step 333 is in the seventh epoch, whose end is step 350
        ({"count": 20}, True), ({"count": 19}, False),
        ({"others": 50}, True), ({"others": 49}, False),
        ({"triggers": ("epoch", "epoch", "epoch")}, True), ({"triggers": ("epoch", "key", "epoch")}, False),
        ({"all_lag": True}, False),
    ],
)  # fmt: skip
def test_each_condition_of_an_unlearned_class_counts(change: dict[str, object], expected: bool) -> None:
    lagging = (1, 1, 1) if "count" in change else (5, 5, 5)
    assert bool(not_learnt(*lagging, **change)) is expected  # type: ignore[arg-type]


# A best chosen on test images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "on_test", "on_val", "expected"),
    [("test", 10, 0, True), ("test", 9, 0, False), ("test", 9, 5, False), ("val", 10, 10, False)],
)
def test_a_best_counts_as_chosen_on_test_after_ten_evaluations(
    selection: str, on_test: int, on_val: int, expected: bool
) -> None:
    events: list[Event] = [started(selection_split=selection)]
    events += [evaluation(epoch, 0.5, 0.8, split="test") for epoch in range(1, on_test + 1)]
    events += [evaluation(epoch, 0.5, 0.8, split="val") for epoch in range(1, on_val + 1)]
    verdict = selected_on_test(view_of(events))
    assert (verdict.evidence if verdict else "") == ("best of 10 evaluations" if expected else "")
