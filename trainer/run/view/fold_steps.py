"""Folds steps and the lines between them into a `RunView`, many at once."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from trainer.run.log.event import number
from trainer.run.view.run_view import RunView
from trainer.run.view.throughput import StepGroup, StepWindow

_TICK_S = 1.0


@dataclass(frozen=True)
class StepColumns:
    """Columns of the steps of one or more `steps` lines. A non-finite value is NaN."""

    steps: array[float]
    losses: array[float]
    accuracies: array[float]
    rates: array[float]
    nonfinite: int  # number of non-finite losses
    budget: dict[str, float]  # seconds by activity, from the newest line that has them; may be empty
    firsts: list[int]  # first step of each line
    groups: list[StepGroup]  # steps, images and seconds of each line

    @classmethod
    def of(
        cls,
        firsts: list[int],
        counts: list[int],
        values: Sequence[list[Any]],
        groups: list[StepGroup],
        budget: dict[str, float],
    ) -> StepColumns:
        """Columns of lines of `counts` steps each. `values` are losses (None: non-finite), accuracies and rates."""
        losses, accuracies, rates = values
        nonfinite = losses.count(None)
        return cls(
            steps=_numbered(firsts, counts), losses=array("d", map(number, losses) if nonfinite else losses),
            nonfinite=nonfinite, accuracies=array("d", accuracies), rates=array("d", rates), budget=budget, firsts=firsts,
            groups=groups,
        )  # fmt: skip


def _numbered(firsts: list[int], counts: list[int]) -> array[float]:
    if firsts == list(accumulate(counts[:-1], initial=firsts[0])):
        return array("d", list(range(firsts[0], firsts[-1] + counts[-1])))
    return array(
        "d", [step for first, count in zip(firsts, counts, strict=True) for step in range(first, first + count)]
    )


def apply_steps(view: RunView, columns: StepColumns, time: float) -> None:
    """Fold in many new steps, of which the newest was done at `time`. The caller records the line and notes skipped steps."""
    view.train_loss.extend(columns.steps, columns.losses)
    view.train_accuracy.extend(columns.steps, columns.accuracies)
    view.lr.extend(columns.steps, columns.rates)
    view.nonfinite_steps += columns.nonfinite
    view.step = int(columns.steps[-1])
    view.last_step_time = time
    tick(view, view.step, time)
    if columns.budget:
        view.budget = columns.budget
        view.budgets.append(columns.budget)
    groups = columns.groups
    for begin, _, _ in view.image_sizes():
        line = bisect_left(columns.firsts, begin + 1)
        if columns.firsts[line : line + 1] == [begin + 1]:
            # Steps at another image size do not predict the remaining ones.
            view.window, groups = StepWindow(), columns.groups[line:]
    view.window.add(groups)


def tick(view: RunView, step: int, time: float) -> None:
    """Record when a step was done. Steps never decrease here."""
    clock = view.clock
    if len(clock) > 1 and time - clock.y[-2] < _TICK_S:
        clock.drop_after(clock.x[-2])
    clock.put(float(step), time)


def take_memory(view: RunView, readings: list[tuple[int, dict[str, float]]]) -> None:
    """Record the memory in use after some steps: steps done and values of each `Monitored` event, in order."""
    for step, reading in readings:
        used = reading.get("device_used_bytes", reading.get("process_bytes"))
        if used is not None and step:
            view.memory.put(float(step), float(used))


def record_line(view: RunView, seq: int, time: float) -> None:
    """Record sequence number and time of the newest folded line."""
    view.seq, view.last_time, view.begun = max(view.seq, seq), time, view.begun or time
