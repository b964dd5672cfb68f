"""Results of each class on the dashboard and in a tracker's summary, from canned events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import CheckpointSaved, Evaluated, Steps
from trainer.run.log.run_events import Finished, Resumed, Started
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView
from trainer.trackers.feed import Feed
from trainer.trackers.tracker import Histogram
from tui.state.class_results import class_results, recalls

NAMES = ["ant", "bee", "cat", "dog"]


def started(classes: Sequence[str] = NAMES, selection: str = "val") -> Started:
    splits = {"train": 64, "val": 40, "test": 40}
    return Started(
        classes=list(classes), splits=splits, selection_split=selection, fingerprint="f", model={}, device={}, choices={},
        epochs=9, steps_per_epoch=4, total_steps=36, planned_lr=[[], []], versions={},
    )  # fmt: skip


def evaluated(
    step: int, counts: Sequence[int], correct: Sequence[int], *, confusions: Sequence[Sequence[int]] = (),
    split: str = "val", best: bool = False, trigger: str = "epoch", accuracy: float | None = None,
) -> Evaluated:  # fmt: skip
    share = sum(correct) / sum(counts) if accuracy is None else accuracy
    return Evaluated(
        split=split, epoch=step / 4, step=step, loss=0.5, accuracy=share, correct=list(correct), counts=list(counts),
        confusions=[list(row) for row in confusions], best=best, trigger=trigger,
    )  # fmt: skip


def records(events: Iterable[Event]) -> list[Record]:
    return [Record(seq=seq, time=100.0 + seq, event=event) for seq, event in enumerate(events)]


def view_of(*events: Event) -> RunView:
    view = RunView()
    for record in records(events):
        apply(view, record)
    return view


def test_classes_are_sorted_worst_first_and_empty_ones_last() -> None:
    results = class_results(view_of(started(), evaluated(4, [10, 0, 10, 5], [9, 0, 0, 3])))
    assert [result.name for result in results] == ["cat", "dog", "ant", "bee"]
    assert [result.label for result in results] == [2, 3, 0, 1]
    assert [result.score.recall for result in results] == [0.0, 0.6, 0.9, None]


classes = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (max(pair), min(pair))), min_size=1, max_size=8
)


@given(classes=classes)
def test_sorting_classes_by_recall_keeps_their_names(
    classes: list[tuple[int, int]],
) -> None:
    names = [f"class {label}" for label in range(len(classes))]
    event = evaluated(4, [images for images, _ in classes], [right for _, right in classes], accuracy=0.5)
    results = class_results(view_of(started(names), event))
    present = [label for label, (images, _) in enumerate(classes) if images]
    empty = [label for label, (images, _) in enumerate(classes) if not images]
    wanted = sorted(present, key=lambda label: classes[label][1] / classes[label][0]) + empty
    assert [result.label for result in results] == wanted
    for result in results:
        assert result.name == names[result.label]
        assert (result.score.images, result.score.correct) == classes[result.label]


def test_the_change_of_a_class_is_that_of_its_recall_on_the_selection_split() -> None:
    view = view_of(
        started(),
        evaluated(4, [10, 0, 10, 5], [5, 0, 2, 5]),
        evaluated(8, [40, 1, 1, 1], [0, 0, 0, 0], split="test"),
        evaluated(8, [20, 4, 10, 0], [15, 1, 1, 0]),
    )
    changes = {result.name: result.change for result in class_results(view)}
    assert changes == {
        "ant": pytest.approx(15 / 20 - 5 / 10), "bee": None, "cat": pytest.approx(1 / 10 - 2 / 10), "dog": None,
    }  # fmt: skip
    assert recalls(view, 0, 9) == [0.5, 0.75]
    assert recalls(view, 1, 9) == [0.25], "evaluations without images of the class do not count"
    assert recalls(view, 0, 1) == [0.75]


def test_counts_of_confusions_are_known_only_if_all_are_logged() -> None:
    confusions = [[2, 3, 1, 1], [], [0, 2], []]
    results = class_results(view_of(started(), evaluated(4, [10, 3, 10, 5], [6, 3, 1, 5], confusions=confusions)))
    ant, cat = (next(result for result in results if result.name == name) for name in ("ant", "cat"))
    assert [ant.predicted_as(other) for other in (1, 2, 3)] == [1, 3, 0]
    assert [cat.predicted_as(other) for other in (0, 1, 3)] == [2, None, None], "two of nine mistakes are logged"


class FigureRecorder:
    """A tracker that records only its figures."""

    def __init__(self) -> None:
        self.figures: dict[tuple[int, str], float] = {}

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self.figures |= {(step, name): value for name, value in values.items()}

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None: ...

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None: ...

    def note(self, text: str, *, step: int, time: float) -> None: ...

    def back_to(self, step: int) -> None: ...

    def flush(self) -> None: ...

    def close(self, results: Mapping[str, float]) -> None: ...


def results_of(*events: Event) -> tuple[dict[str, float], dict[tuple[int, str], float]]:
    """The results of a run that a tracker receives, and all its figures by step and name."""
    sink = FigureRecorder()
    feed = Feed(sink, lambda _path, _step: None)
    for record in records(events):
        feed.take(record)
    return feed.results, sink.figures


def best(step: int, accuracy: float) -> Evaluated:
    return evaluated(step, [10], [5], best=True, accuracy=accuracy)


def worse(step: int, accuracy: float) -> Evaluated:
    return evaluated(step, [10], [5], accuracy=accuracy)


def final_test(step: int, accuracy: float) -> Evaluated:
    return evaluated(step, [10], [5], split="test", trigger="end", accuracy=accuracy)


def resumed(step: int) -> Resumed:
    return Resumed(step=step, epoch=0, checkpoint="x")


def ended(step: int, reason: str = "completed") -> Finished:
    return Finished(reason=reason, step=step, epoch=1.0, exit_code=0)


CASES: list[tuple[Any, ...]] = [
    ("the last best", [best(4, 0.5), best(8, 0.7), worse(12, 0.6), ended(12)], (0.7, 8, None)),
    ("best undone by a resume", [best(4, 0.5), best(8, 0.7), resumed(4), worse(8, 0.4), ended(8)], (0.5, 4, None)),
    ("best at the step of the resume", [best(4, 0.5), best(8, 0.7), resumed(8), worse(12, 0.6), ended(12)], (0.7, 8, None)),
    ("another best after the resume", [best(4, 0.5), best(8, 0.7), resumed(6), best(8, 0.6), ended(8)], (0.6, 8, None)),
    ("none left", [best(8, 0.7), resumed(4), ended(4)], None),
    ("final test", [best(4, 0.5), worse(8, 0.4), final_test(4, 0.3), ended(8)], (0.5, 4, 0.3)),
    ("test by key", [best(4, 0.5), evaluated(4, [1], [1], split="test", trigger="key"), ended(8)], (0.5, 4, None)),
    ("stopped", [best(4, 0.5), ended(8, "stopped")], None),
    ("resumed", [best(4, 0.5), ended(4), resumed(4)], None),
]  # fmt: skip


@pytest.mark.parametrize(("events", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_results_of_a_run_come_from_its_best_checkpoint(
    events: list[Event], wanted: tuple[float, float, float | None] | None
) -> None:
    results, _ = results_of(started(["one"]), *events)
    if wanted is None:
        assert results == {}
        return
    accuracy, step, test = wanted
    expected = {"best/val_accuracy": accuracy, "best/step": float(step)}
    assert results == expected | ({} if test is None else {"best/test_accuracy": test})


def test_figures_of_steps_and_classes_are_logged_by_step_and_name() -> None:
    steps = Steps(
        first_step=3, loss=[3.0, 4.0, 5.0], accuracy=[0.3, 0.4, 0.5], lr=[0.03, 0.04, 0.05], images=24, seconds=2.0
    )
    saved = CheckpointSaved(step=5, path="x", size_bytes=1, sha256="", pinned=False, best=False, seconds=0.1)
    event = evaluated(5, [10, 0, 4, 5], [5, 0, 3, 1])
    _, figures = results_of(started(), steps, event, saved)
    for step in (3, 4, 5):
        assert figures[step, "train/loss"] == step
        assert figures[step, "train/accuracy"] == pytest.approx(step / 10)
        assert figures[step, "train/rate"] == pytest.approx(step / 100)
    assert figures[5, "train/images_per_s"] == 12.0
    assert (4, "train/images_per_s") not in figures
    assert figures[5, "val/accuracy"] == 9 / 19
    by_class = {name.removeprefix("val_class/"): value for (_, name), value in figures.items() if "_class/" in name}
    assert by_class == {"ant": 0.5, "cat": 0.75, "dog": 0.2}, "a class without images has no accuracy"
