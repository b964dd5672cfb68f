"""Rules about time, memory and the log, on both sides of their thresholds, and verdicts by state of a run."""

from __future__ import annotations

import pytest

from tests.support.diagnosed import evaluation, started, steps, training, view_of
from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.diagnosis.resource_rules import data_bound, lines_skipped, memory_full
from trainer.run.log.event import Event
from trainer.run.log.run_events import Monitored
from trainer.run.status import RunState
from trainer.run.view.class_score import ClassScore, scores_from_counts, scores_of

GIB = 2.0**30


@pytest.mark.parametrize(
    ("data", "compute", "expected"),
    [
        (4.5, 25.5, "15% of step time"), (4.4, 25.6, ""),  # 15 %
        (5.0, 24.9, ""), (5.0, 25.1, "17% of step time"),  # of 30 s at least
        (40.0, 0.0, "100% of step time"), (0.0, 40.0, ""), (0.0, 0.0, ""),
    ],
)  # fmt: skip
def test_waiting_for_data_is_reported_from_15_pct_of_30_s_on(data: float, compute: float, expected: str) -> None:
    budget = {"data": data, "compute": compute, "evaluate": 500.0, "save": 500.0}
    verdict = data_bound(view_of([started(), steps(1, lambda _: 1.0, lambda _: 0.5, budget=budget)]))
    assert (verdict.evidence if verdict else "") == expected


@pytest.mark.parametrize(
    ("cache", "remedy"), [("none", "data.workers"), ("ram", "data.cache=device"), ("device", "data.cache=device")]
)
def test_the_remedy_for_waiting_depends_on_the_image_cache(cache: str, remedy: str) -> None:
    slow = steps(1, lambda _: 1.0, lambda _: 0.5, budget={"data": 20.0, "compute": 20.0})
    verdict = data_bound(view_of([started(choices={"cache": cache}), slow]))
    assert verdict is not None
    assert remedy in verdict.remedy


def memory_verdict(**gib: float) -> str:
    """The verdict on nearly full memory, for readings in GiB."""
    verdict = memory_full(view_of([Monitored(readings={f"{name}_bytes": size * GIB for name, size in gib.items()})]))
    return verdict.text if verdict else ""


DEVICE, MACHINE = "the device's memory is nearly full", "this machine's memory is nearly full"


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ({"device_used": 95.0, "device_total": 100.0}, DEVICE),
        ({"device_used": 94.9, "device_total": 100.0}, ""),
        ({"device_used": 95.0}, ""),
        ({"device_total": 100.0}, ""),
        # 10 GiB are reserved but were never needed, so of 96 GiB in use 86 count.
        ({"device_used": 96.0, "device_total": 100.0, "reserved": 60.0, "peak": 50.0}, ""),
        ({"device_used": 96.0, "device_total": 100.0, "reserved": 60.0, "peak": 59.5}, DEVICE),
        ({"device_used": 96.0, "device_total": 100.0, "reserved": 60.0}, DEVICE),
        ({"device_used": 96.0, "device_total": 100.0, "peak": 60.0}, DEVICE),
        ({"device_used": 94.0, "device_total": 100.0, "reserved": 50.0, "peak": 60.0}, ""),  # nothing is cached
        ({"system_used": 95.0, "system_total": 100.0}, MACHINE),
        ({"system_used": 94.9, "system_total": 100.0}, ""),
        ({"system_used": 95.0, "system_total": 0.0}, ""),
        ({"system_used": 99.0, "system_total": 100.0, "reserved": 60.0, "peak": 10.0}, MACHINE),
        ({"device_used": 99.0, "device_total": 100.0, "system_used": 99.0, "system_total": 100.0}, DEVICE),
        ({"device_used": 1.0, "device_total": 100.0, "system_used": 99.0, "system_total": 100.0}, MACHINE),
    ],
)
def test_memory_is_nearly_full_from_95_pct_on(readings: dict[str, float], expected: str) -> None:
    assert memory_verdict(**readings) == expected


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "1 line of the log skipped"), (2, "2 lines of the log skipped"), (1234, "1,234 lines of the log skipped")],
)  # fmt: skip
def test_skipped_lines_are_counted(count: int, text: str) -> None:
    view = view_of([])
    view.bad_records = count
    verdict = lines_skipped(view)
    assert (verdict.text if verdict else "") == text


def events_for_every_level() -> list[Event]:
    """A run with a verdict of each level: non-finite steps, waiting for data, a best chosen on test images."""
    bad = steps(1, lambda n: None if n % 4 == 0 else 1.0, lambda _: 0.5, budget={"data": 20.0, "compute": 20.0})
    evaluations = [evaluation(1, 0.5, 0.8, split="test", trigger="key") for _ in range(1)]
    evaluations += [evaluation(epoch, 0.5, 0.8, split="test") for epoch in range(1, 11)]
    return [*training(started(selection_split="test")), bad, *evaluations]


LEVELS = {"not finite": "error", "data-bound": "warning", "lines left out": "warning", "chosen on test": "info"}


@pytest.mark.parametrize("state", RunState, ids=lambda state: state.name)
def test_a_preparing_or_failed_run_has_only_the_verdict_on_skipped_lines(state: RunState) -> None:
    view = view_of(events_for_every_level())
    view.bad_records, view.state = 1, state
    levels = {verdict.kind: verdict.level for verdict in verdicts(view)}
    inactive = state in (RunState.LOADING, RunState.PREPARING, RunState.FAILED)
    assert levels == ({"lines left out": "warning"} if inactive else LEVELS)
    view.started = None
    assert [verdict.kind for verdict in verdicts(view)] == ["lines left out"]


def test_the_worst_verdict_comes_first() -> None:
    view = view_of(events_for_every_level())
    view.bad_records = 1
    levels = [verdict.level for verdict in verdicts(view)]
    assert levels == ["error", "warning", "warning", "info"]
    kinds = [verdict.kind for verdict in verdicts(view)]
    assert kinds == ["not finite", "lines left out", "data-bound", "chosen on test"]


# Scores of classes ----------------------------------------------------------------------------------------------------


def test_scores_of_a_class_follow_their_definitions() -> None:
    # 6 of 8 images of the class are recognised, and it is predicted 10 times: recall 3/4, precision 3/5, F1 2/3.
    score = ClassScore(images=8, correct=6, predicted=10, confusions=((2, 2),))
    assert (score.recall, score.precision, score.confused_with) == (0.75, 0.6, 2)
    assert score.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    # Wilson's interval of 8 of 10 is 49 to 94 % (docs/dashboard.md).
    assert ClassScore(images=10, correct=8, predicted=None).interval == pytest.approx((0.490, 0.943), abs=5e-4)


@pytest.mark.parametrize(
    ("images", "predicted", "known"),
    [(0, 0, "..."), (0, 3, ".p."), (4, 0, "r.."), (4, None, "r.."), (4, 3, "rpf")],
)
def test_an_undefined_score_is_none(images: int, predicted: int | None, known: str) -> None:
    score = ClassScore(images=images, correct=0, predicted=predicted)
    figures = zip("rpf", (score.recall, score.precision, score.f1), strict=True)
    assert "".join("." if figure is None else name for name, figure in figures) == known
    assert (score.interval is None) is (images == 0)
    assert score.confused_with is None


def test_scores_belong_to_their_class() -> None:
    scores = scores_from_counts([4, 2, 6], [3, 0, 5], [4, 3, 5], [[1, 1], [2, 1, 0, 1], []])
    assert [(s.images, s.correct, s.predicted) for s in scores] == [(4, 3, 4), (2, 0, 3), (6, 5, 5)]
    assert [s.confusions for s in scores] == [((1, 1),), ((2, 1), (0, 1)), ()]
    event = evaluation(1, 0.5, 0.5, 3, correct=[3, 0, 5], counts=[4, 2, 6], predicted=[], confusions=[])
    assert scores_of(event) == [
        ClassScore(images=n, correct=right, predicted=None) for n, right in ((4, 3), (2, 0), (6, 5))
    ]
