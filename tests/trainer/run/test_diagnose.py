"""Verdicts: each is reported for a run with its fault, and none for healthy runs."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable

import pytest

from tests.support.diagnosed import PER_EPOCH, evaluation, evidence_of, layers, started, steps, training, view_of
from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Failed, Monitored, Opened, Resumed, StagesFrozen
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView


def healthy(seed: int) -> list[Event]:
    """A healthy run, with length, noise, number of classes and difficulty drawn by seed."""
    draw = random.Random(seed)
    classes, epochs = draw.choice([2, 3, 10, 100]), draw.choice([5, 12, 30, 80])
    noise, floor, speed = draw.choice([0.02, 0.1, 0.25]), draw.choice([0.02, 0.3, 1.0]), draw.choice([80, 400, 1200])
    warm_up, bump = draw.choice([1, 60, 250]), draw.choice([1.0, 1.0, 1.25])
    top, guess = draw.choice([0.6, 0.9, 0.99]), 1 / classes

    def share(n: float) -> float:
        return 1 - math.exp(-(max(n - warm_up, 0) ** 1.1) / speed)

    def loss(n: int) -> float:
        grown = bump if 0.5 < n / (epochs * PER_EPOCH) < 0.6 else 1.0  # larger images
        level = math.log(classes) * (1 - share(n)) + floor * share(n)
        return max(level * grown * (1 + draw.gauss(0, noise)), 0.001)

    def accuracy(n: int) -> float:
        return min(max(guess + (top - guess) * share(n) + draw.gauss(0, 0.05), 0), 1)

    events = training(started(classes, epochs))
    for epoch in range(1, epochs + 1):
        rates = [0.1 * min(n / warm_up, 1) for n in range((epoch - 1) * PER_EPOCH, epoch * PER_EPOCH)]
        events.append(steps(epoch, loss, accuracy, lr=rates))
        held_out = (math.log(classes) * (1 - share(epoch * PER_EPOCH)) + floor * 1.3) * (1 + abs(draw.gauss(0, 0.04)))
        events.append(layers(epoch, gradient=draw.choice([0.001, 0.05, 0.5])))
        recall = min(max(guess + (top - 0.03 - guess) * share(epoch * PER_EPOCH) + draw.gauss(0, 0.01), 0), 1)
        silent = {"layer3.0.conv1": draw.choice([0.01, 0.3, 0.6])}
        events.append(evaluation(epoch, held_out, recall, classes, silent=silent))
    return events


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_never_has_a_verdict(seed: int) -> None:
    assert kinds_ever_reported(healthy(seed)) == set()


def kinds_ever_reported(events: Iterable[Event]) -> set[str]:
    """Kinds of all verdicts at any time of a run."""
    view, kinds = RunView(), set()
    for seq, event in enumerate(events):
        apply(view, Record(seq=seq, time=float(seq), event=event))
        kinds |= {verdict.kind for verdict in verdicts(view)}
    assert view.bad_records == 0
    return kinds


def few_large_losses(seed: int) -> Callable[[int], float]:
    """Losses of batches of eight images, of which one in twenty cannot be learned."""
    draw = random.Random(seed)
    return lambda _: sum(3.0 if draw.random() < 0.05 else 0.05 for _ in range(8)) / 8


@pytest.mark.parametrize("seed", range(5))
def test_a_few_unlearnable_images_in_small_batches_are_not_a_rising_loss(seed: int) -> None:
    loss = few_large_losses(seed)
    events = training(started(classes=2, epochs=100)) + [steps(epoch, loss, rising) for epoch in range(1, 81)]
    assert kinds_ever_reported(events) == set()


def test_a_rise_after_unfreezing_stages_is_not_reported() -> None:
    events = training(started(epochs=40)) + [steps(epoch, lambda _: 0.15, lambda _: 0.95) for epoch in range(1, 11)]
    events.append(StagesFrozen(step=500, stages=[], trainable=11_000_000))
    events += [steps(epoch, lambda n: 0.9 - n * 1e-4, lambda _: 0.7) for epoch in range(11, 25)]
    assert kinds_ever_reported(events) == set()


def test_a_rise_after_a_resume_with_more_epochs_is_not_reported() -> None:
    events = [*learning(20), Resumed(step=1000, epoch=20, checkpoint="x"), *training(started(epochs=60))]
    events += [steps(epoch, lambda _: 0.44, lambda _: 0.9) for epoch in range(21, 40)]
    assert kinds_ever_reported(events) == set()


def falling(n: int) -> float:
    return 0.1 + 2.2 * math.exp(-n / 200)


def rising(n: int) -> float:
    return 1 - 0.9 * math.exp(-n / 200)


def learning(epochs: int) -> list[Event]:
    """The first epochs of a run that learns."""
    return training(started()) + [steps(epoch, falling, rising) for epoch in range(1, epochs + 1)]


def test_fluctuations_at_the_peak_rate_are_not_overfitting() -> None:
    rates = [0.1 * min(n, 500) / 500 for n in range(1, 1001)]
    begun = started(planned_lr=[[float(n) for n in range(1, 1001)], rates])
    held_out = {4: 0.5, 11: 0.6, 12: 0.6, 13: 0.6}
    events = training(begun)
    for epoch in range(1, 14):
        events += [steps(epoch, falling, rising), evaluation(epoch, held_out.get(epoch, 0.7), 0.8)]
    assert "overfitting" not in evidence_of(events), "the lowest loss was before the peak"


def test_a_layer_silent_at_two_evaluations_is_reported() -> None:
    events = [
        *learning(4),
        *(evaluation(n, 1.0, 0.5, silent={"layer3.0.conv1": share}) for n, share in ((2, 0.1), (3, 1.0))),
    ]
    assert "dead layer" not in evidence_of(events), "one evaluation is not enough"
    events.append(evaluation(4, 1.0, 0.5, silent={"layer3.0.conv1": 0.97, "layer2.0.conv1": 0.5}))
    assert evidence_of(events)["dead layer"] == "97% of its channels are 0 for all val images checked"


def test_a_layer_changed_too_much_by_one_sgd_step_is_reported() -> None:
    # A rate of 0.1 times a gradient of 45 is 45 % of the layer's norm of 10.
    events = [*learning(4), layers(2, gradient=5.0), layers(3, gradient=40.0)]
    assert "exploding layer" not in evidence_of(events), "one measurement is not enough"
    events.append(layers(4, gradient=45.0))
    assert evidence_of(events)["exploding layer"] == "one step changes its norm by 45%"
    muon = Opened(run="m", directory="m", pid=1, host="h", resume=False, config={"optim": {"name": "muon"}})
    assert "exploding layer" not in evidence_of([muon, *events]), (
        "with Muon, the gradient's norm does not determine the step's"
    )
    assert "exploding layer" not in evidence_of([*events, layers(5, gradient=None)]), (
        "non-finite gradients belong to another rule"
    )


def test_a_stuck_loss_is_reported_after_an_epoch_and_200_steps() -> None:
    draw = random.Random(0)
    events = training(started())
    for epoch in range(1, 6):
        events.append(steps(epoch, lambda _: 2.3 + draw.gauss(0, 0.02), lambda _: 0.1 + draw.gauss(0, 0.03)))
        assert ("loss stuck" in evidence_of(events)) is (epoch >= 4)
    assert evidence_of(events)["loss stuck"] == "2.30 at first, 2.30 after 250 steps"


def test_good_initial_weights_are_not_a_stuck_loss() -> None:
    events = training(started()) + [steps(epoch, lambda _: 0.2, lambda _: 0.95) for epoch in range(1, 8)]
    assert evidence_of(events) == {}


def test_a_loss_that_overshoots_and_stays_at_guessing_is_stuck() -> None:
    events = training(started())
    events += [steps(epoch, lambda n: 8.0 - n / 4 if n < 20 else 2.303, lambda _: 0.1) for epoch in range(1, 8)]
    assert set(evidence_of(events)) == {"loss stuck"}


def test_a_collapsed_run_is_reported_until_its_end() -> None:
    events = training(started(epochs=120)) + [steps(epoch, falling, rising) for epoch in range(1, 21)]
    events += [steps(epoch, lambda _: 2.303, lambda _: 0.1) for epoch in range(21, 111)]
    assert set(evidence_of(events)) == {"loss stuck"}


def test_good_weights_with_mixed_images_are_not_a_stuck_loss() -> None:
    events = training(started(classes=2)) + [steps(epoch, lambda _: 0.5, lambda _: 0.75) for epoch in range(1, 8)]
    assert "loss stuck" not in evidence_of([*events, evaluation(7, 0.1, 0.97, classes=2)])


def test_slow_learning_is_not_a_stuck_loss() -> None:
    events = training(started())
    events += [steps(epoch, lambda n: 2.303 - n * 1e-5, lambda n: 0.1 + n * 5e-5) for epoch in range(1, 11)]
    assert evidence_of(events) == {}


def test_a_rising_loss_is_reported() -> None:
    events = learning(10) + [steps(epoch, lambda _: 1.9, lambda _: 0.3) for epoch in (11, 12, 13, 14)]
    assert evidence_of(events) == {"loss rising": "0.485 before, 1.9 in the last 100 steps"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("every", "level"), [(25, "warning"), (5, "error")])
def test_non_finite_steps_are_reported_with_a_level_by_frequency(precision: str, every: int, level: str) -> None:
    def sometimes_nan(n: int) -> float | None:
        return None if n % every == 0 else falling(n)

    events = [
        *training(started(choices={"precision": precision})),
        *(steps(epoch, sometimes_nan, rising) for epoch in (1, 2)),
    ]
    (verdict,) = [verdict for verdict in verdicts(view_of(events)) if verdict.kind == "not finite"]
    assert (verdict.level, verdict.evidence) == (level, f"in {100 // every} of the last 100 steps")


def overfitted(last: float, recall: float = 0.7) -> list[Event]:
    events = learning(0)
    for epoch in range(1, 9):
        held_out = {5: 0.5, 6: 0.56, 7: 0.58, 8: last}.get(epoch, 1.2 - 0.1 * epoch)
        events += [steps(epoch, falling, rising), evaluation(epoch, held_out, 0.7 if epoch < 8 else recall)]
    return events


def test_overfitting_is_reported_after_three_evaluations_worse_by_a_tenth() -> None:
    assert evidence_of(overfitted(0.7)) == {
        "overfitting": "val loss 0.500 at epoch 5, now 0.700; train 0.916, now 0.485"
    }
    assert evidence_of(overfitted(0.7)[:-1]) == {}, "only two evaluations"
    assert evidence_of(overfitted(0.52)) == {}
    assert evidence_of(overfitted(0.7, recall=0.75)) == {}, "accuracy still rises"


def test_an_evaluation_with_nan_loss_does_not_hide_overfitting() -> None:
    events = overfitted(0.7)
    first = next(index for index, event in enumerate(events) if isinstance(event, Evaluated))
    event = events[first]
    assert isinstance(event, Evaluated)
    events[first] = dataclasses.replace(event, loss=None)
    assert set(evidence_of(events)) == {"overfitting"}


def test_waiting_for_data_is_reported_with_its_share() -> None:
    slow = steps(6, falling, rising, budget={"data": 12.1, "compute": 38.0, "evaluate": 60.0})
    assert evidence_of([*learning(5), slow]) == {"data-bound": "30% of step time"}
    early = dataclasses.replace(slow, budget={"data": 12.1, "compute": 27.0})
    assert evidence_of([*learning(5), early]) == {}, "too early"
    (verdict,) = verdicts(view_of([*learning(5), slow]))
    assert "data.workers" in verdict.remedy
    kept = started(choices={"cache": "ram"})
    (verdict,) = verdicts(view_of([*training(kept), *(steps(epoch, falling, rising) for epoch in range(1, 6)), slow]))
    assert "data.workers" not in verdict.remedy, "nothing is decoded"


def test_earlier_waiting_for_data_is_forgotten() -> None:
    events = [*learning(0), steps(1, falling, rising, budget={"data": 20.0, "compute": 20.0})]
    assert set(evidence_of(events)) == {"data-bound"}
    later = ({"data": 20.0, "compute": 20.0 + 5 * epoch} for epoch in range(2, 20))
    events += [steps(epoch, falling, rising, budget=budget) for epoch, budget in enumerate(later, 2)]
    assert evidence_of(events) == {}


def test_nearly_full_memory_is_reported() -> None:
    readings = {"device_used_bytes": 78.0 * 2**30, "device_total_bytes": 79.6 * 2**30}
    assert evidence_of([*learning(5), Monitored(readings=readings)]) == {"memory": "78.0 of 79.6 GiB"}
    cached = {**readings, "reserved_bytes": 75.0 * 2**30, "peak_bytes": 50.0 * 2**30}
    assert evidence_of([*learning(5), Monitored(readings=cached)]) == {}, "the allocator can return cached memory"
    assert evidence_of([*learning(5), Monitored(readings={"system_used_bytes": 1.0, "system_total_bytes": 0.0})]) == {}
    assert evidence_of([*learning(5), Monitored(readings={**readings, "device_used_bytes": 70.0 * 2**30})]) == {}


def swapped(epoch: int, shares: tuple[int, int], classes: int = 10) -> Evaluated:
    correct = [100 - shares[0], 100 - shares[1], *[80] * (classes - 2)]
    return evaluation(
        epoch, 0.5, sum(correct) / (100 * classes), classes, correct=correct,
        confusions=[[1, shares[0]], [0, shares[1]], *([] for _ in range(classes - 2))],
    )  # fmt: skip


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_two_classes_confused_with_each_other_look_swapped(classes: int) -> None:
    events = [*training(started(classes)), *(steps(epoch, falling, rising) for epoch in range(1, 6))]
    events += [evaluation(4, 0.5, 0.8, classes), swapped(5, (88, 91), classes)]
    assert "labels swapped" not in evidence_of(events), "one evaluation may be due to batch norm's initial statistics"
    assert evidence_of([*events, swapped(6, (88, 91), classes)]) == {
        "labels swapped": "88% and 91% are predicted as the other"
    }
    assert "labels swapped" not in evidence_of([*events, swapped(6, (55, 52), classes)]), "within chance"
    assert "labels swapped" not in evidence_of([*events, swapped(6, (88, 5), classes)]), "in one direction only"


def test_an_unlearned_class_is_reported_after_three_evaluations() -> None:
    events = [*learning(8), *(evaluation(epoch, 0.5, 0.8) for epoch in (7, 8))]
    for epoch in (9, 10, 11):
        assert evidence_of(events) == {}
        events.append(evaluation(epoch, 0.5, 0.8, correct=[80] * 4 + [2] + [80] * 5))
    assert evidence_of(events) == {"class not learnt": "2 of 100 recognised, in three evaluations"}


def test_an_unlearned_class_is_not_reported_in_the_first_third() -> None:
    events = learning(5) + [evaluation(epoch, 0.5, 0.8, correct=[80] * 4 + [0] + [80] * 5) for epoch in range(1, 7)]
    assert evidence_of(events) == {}


def test_a_best_chosen_on_test_images_is_reported() -> None:
    events = training(started(selection_split="test")) + [steps(epoch, falling, rising) for epoch in range(1, 11)]
    events += [evaluation(epoch, 0.5, 0.8, split="test") for epoch in range(1, 11)]
    assert evidence_of(events) == {"chosen on test": "best of 10 evaluations"}


def test_the_worst_verdict_comes_first_and_a_failed_run_has_none() -> None:
    def often_nan(n: int) -> float | None:
        return None if n % 4 == 0 else falling(n)

    slow = steps(6, often_nan, rising, budget={"data": 12.1, "compute": 38.0})
    events: list[Event] = [*learning(5), slow]
    assert [verdict.kind for verdict in verdicts(view_of(events))] == ["not finite", "data-bound"]
    assert evidence_of([*events, Failed(error="no memory", exit_code=1)]) == {}
