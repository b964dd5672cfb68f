"""Folds steps and the lines between them into a `RunView`, many at once."""

from __future__ import annotations

from bisect import bisect_left

from trainer.run.view.run_view import RunView
from trainer.run.view.step_columns import StepColumns
from trainer.run.view.throughput import StepWindow

_TICK_S = 1.0


def apply_steps(view: RunView, columns: StepColumns, time: float) -> None:
    """Fold in many new steps, none of them skipped, of which the newest was done at `time`. Call `record_line` afterwards."""
    view.train_loss.extend(columns.steps, columns.losses)
    view.train_accuracy.extend(columns.steps, columns.accuracies)
    view.lr.extend(columns.steps, columns.rates)
    view.nonfinite_steps += columns.nonfinite
    view.step = int(columns.steps[-1])
    view.last_step_time = time
    tick(view, view.step, time)
    take_budget(view, columns.budget)
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


def take_budget(view: RunView, budget: dict[str, float]) -> None:
    """Record the seconds by activity, where a line of steps has them."""
    if budget:
        view.budget = budget
        view.budgets.append(budget)


def record_line(view: RunView, seq: int, time: float) -> None:
    """Record sequence number and time of the newest folded line."""
    view.seq, view.last_time, view.begun = max(view.seq, seq), time, view.begun or time
