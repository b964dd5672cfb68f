"""Canned logs of runs, and the verdicts on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Evaluated, LayersMeasured, Steps
from trainer.run.log.run_events import Started, StateChanged
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView

PER_EPOCH = 50


def started(classes: int = 10, epochs: int = 20, **changes: object) -> Started:
    event = Started(
        classes=[f"class {label}" for label in range(classes)], splits={"train": 6400, "val": 1000}, selection_split="val",
        fingerprint="f", model={"stem": "cifar"}, device={}, choices={"precision": "bf16"}, epochs=epochs,
        steps_per_epoch=PER_EPOCH, total_steps=epochs * PER_EPOCH, planned_lr=[[], []], versions={},
    )  # fmt: skip
    return dataclasses.replace(event, **changes)  # type: ignore[arg-type]


def steps(
    epoch: int, loss: Callable[[int], float | None], accuracy: Callable[[int], float], **changes: object
) -> Steps:
    first = (epoch - 1) * PER_EPOCH + 1
    numbers = range(first, first + PER_EPOCH)
    event = Steps(
        first_step=first, loss=[loss(n) for n in numbers], accuracy=[accuracy(n) for n in numbers], lr=[0.1] * PER_EPOCH,
        images=128 * PER_EPOCH, seconds=10.0, budget={"data": 0.1 * epoch, "compute": 10.0 * epoch},
    )  # fmt: skip
    return dataclasses.replace(event, **changes)  # type: ignore[arg-type]


def evaluation(epoch: int, loss: float, recall: float, classes: int = 10, **changes: object) -> Evaluated:
    correct = [round(100 * recall)] * classes
    event = Evaluated(
        split="val", epoch=float(epoch), step=epoch * PER_EPOCH, loss=loss, accuracy=recall, correct=correct,
        counts=[100] * classes, predicted=[100] * classes, confusions=[[(label + 1) % classes, 5] for label in range(classes)],
    )  # fmt: skip
    return dataclasses.replace(event, **changes)  # type: ignore[arg-type]


def layers(epoch: int, *, gradient: float | None = 0.05) -> LayersMeasured:
    """Statistics of two layers, the first of them frozen."""
    return LayersMeasured(
        epoch=float(epoch), step=epoch * PER_EPOCH, names=["conv1", "layer3.0.conv1"], parameters=[1728, 36864],
        weight_norms=[3.0, 10.0], weight_ranges=[1.0, 1.0], weights=[[], []], gradient_norms=[None, gradient],
        gradient_ranges=[None, gradient], gradients=[[], []],
    )  # fmt: skip


def view_of(events: Iterable[Event]) -> RunView:
    view = RunView()
    for seq, event in enumerate(events):
        apply(view, Record(seq=seq, time=float(seq), event=event))
    assert view.bad_records == 0
    return view


def evidence_of(events: Iterable[Event]) -> dict[str, str]:
    """Evidence of all verdicts at the end of a run, by kind."""
    return {verdict.kind: verdict.evidence for verdict in verdicts(view_of(events))}


def training(event: Event) -> list[Event]:
    return [event, StateChanged(state="training")]
