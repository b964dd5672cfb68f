"""Folds many lines of a log at once: to what `RunView.apply` makes of them one by one, many times as fast.

A run of weeks on a slow machine has a million lines of one step each. Steps that follow each other are folded as columns;
readings and heartbeats between them, which say only how things stand, do not part them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter, lt
from typing import Any

from trainer.run.events import Heartbeat, Monitored, Steps
from trainer.run.log_lines import contents, record_of
from trainer.run.step_columns import StepColumns
from trainer.run.view import RunView

_AT_ONCE = 512
"""Lines whose content is in memory at a time: as much as stays in a processor's cache."""

_SEQ, _NUMBERS = itemgetter("seq"), itemgetter(Steps.kind)

_TOGETHER = (Steps.kind, Monitored.kind, Heartbeat.kind)


def replay(view: RunView, lines: Sequence[bytes]) -> None:
    """Fold lines in, the oldest first; those that cannot be read are passed over."""
    for start in range(0, len(lines), _AT_ONCE):
        found = contents(lines[start : start + _AT_ONCE])
        apart = [i for i, line in enumerate(found) if line.get("kind") not in _TOGETHER or "skipped" in line]
        begin = 0
        for end in [*apart, len(found)]:
            _fold_together(view, found[begin:end])
            _fold_each(view, found[end : end + 1])
            begin = end + 1


def _readings(lines: list[Any], done: int) -> list[tuple[int, dict[str, float]]]:
    """Readings, each with the steps done then.

    Args:
        lines: Steps, readings and heartbeats.
        done: Steps before the first of them.
    """
    found: list[tuple[int, dict[str, float]]] = []
    for index, content in enumerate(lines):
        if content["kind"] == Monitored.kind:
            before = next((line for line in reversed(lines[:index]) if line["kind"] == Steps.kind), None)
            numbers = None if before is None else _NUMBERS(before)
            found.append((done if numbers is None else int(numbers[0]) + len(numbers[1]) - 1, content.get("readings")))
    return found


def _fold_each(view: RunView, lines: Iterable[Any]) -> None:
    for content in lines:
        record = record_of(content)
        if record is not None:
            view.apply(record)


def _fold_together(view: RunView, lines: list[Any]) -> None:
    """Fold steps and what was logged between them; one by one where a line is damaged or was folded before."""
    steps = [content for content in lines if content["kind"] == Steps.kind]
    if len(steps) < 2:
        return _fold_each(view, lines)
    try:
        numbers = list(map(_SEQ, lines))
        rising = all(map(lt, numbers, numbers[1:]))
        if rising and numbers[-1] <= view.seq:
            return None  # seen: the file of a reader that fell behind is read from its beginning
        if not rising or numbers[0] <= view.seq:
            return _fold_each(view, lines)
        budget: dict[str, float] = next((content["budget"] for content in reversed(steps) if "budget" in content), {})
        columns = StepColumns.of(list(map(_NUMBERS, steps)), budget)
        step_time, time = float(steps[-1]["time"]), float(lines[-1]["time"])
        memory = _readings(lines, view.step)
        view.tick(columns.firsts[0], float(steps[0]["time"]))  # after a pause, say
        view.apply_steps(columns, step_time)
        view.take_memory(memory)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return _fold_each(view, lines)  # of these lines nothing has been folded yet
    view.heard(numbers[-1], time)
    readings = next((content for content in reversed(lines) if content["kind"] == Monitored.kind), None)
    reading = None if readings is None else record_of(readings)
    if reading is not None:
        view.apply_reading(reading)
