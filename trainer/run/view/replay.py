"""Folds many lines of a log at once, with the same result as `apply` line by line, but many times as fast.

A run of weeks on a slow machine has a million lines of one step each. Consecutive steps are folded as columns;
readings and heartbeats between them change no steps and do not interrupt the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter, lt
from typing import Any

from trainer.run.log.codec import LINES_PER_CHUNK, STEP_FIELDS, checks_of, num_unreadable, parse_lines, records_of
from trainer.run.log.event import Record
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import Heartbeat, Monitored
from trainer.run.view.fold import apply
from trainer.run.view.fold_steps import StepColumns, apply_steps, record_line, take_memory, tick
from trainer.run.view.run_view import RunView

_SEQ, _TIME, _NUMBERS = itemgetter("seq"), itemgetter("time"), itemgetter(Steps.kind)
_TOGETHER = (Steps.kind, Monitored.kind, Heartbeat.kind)


def replay(view: RunView, lines: Sequence[bytes]) -> None:
    """Fold lines in, the oldest first; unreadable ones are counted and skipped."""
    for start in range(0, len(lines), LINES_PER_CHUNK):
        part = lines[start : start + LINES_PER_CHUNK]
        found = parse_lines(part)
        newest = next((line["seq"] for line in reversed(found) if "seq" in line), None)
        if newest is None or not view.has_passed(newest):  # a reader that fell behind reads its file again
            view.bad_records += num_unreadable(part, found)
        kinds = [line.get("kind") for line in found]
        apart = [i for i, kind in enumerate(kinds) if kind not in _TOGETHER or "skipped" in found[i]]
        begin = 0
        for end in [*apart, len(found)]:
            _fold_together(view, found[begin:end], kinds[begin:end])
            _fold_each(view, found[end : end + 1])
            begin = end + 1


def _fold_each(view: RunView, lines: Iterable[Any]) -> None:
    for content in lines:
        records, bad = records_of([content])
        for record in records:
            apply(view, record)
        if bad and not view.has_passed(content.get("seq")):
            view.bad_records += 1


def _fold_together(view: RunView, lines: list[Any], kinds: list[Any]) -> None:
    """Fold steps and the lines between them; one by one if a line is damaged or was folded before."""
    steps = [line for line, kind in zip(lines, kinds, strict=True) if kind == Steps.kind]
    if len(steps) < 2:
        return _fold_each(view, lines)
    try:
        numbers, times, rows = list(map(_SEQ, lines)), list(map(_TIME, lines)), list(map(_NUMBERS, steps))
    except KeyError:
        return _fold_each(view, lines)
    columns = _columns(rows, [line["budget"] for line in steps if "budget" in line])
    if columns is None or not _are_in_order(numbers, times):
        return _fold_each(view, lines)
    if numbers[-1] <= view.seq:
        return None  # seen before: a reader that fell behind reads its file from the beginning
    places = [place for place, kind in enumerate(kinds) if kind == Monitored.kind]
    readings = [lines[place].get("readings") for place in places]
    if numbers[0] <= view.seq or not checks_of(Monitored)["readings"](readings):
        return _fold_each(view, lines)
    done = [_steps_before(lines, kinds, place, view.step) for place in places]
    tick(view, columns.firsts[0], steps[0]["time"])  # for example after a pause
    apply_steps(view, columns, steps[-1]["time"])
    take_memory(view, list(zip(done, readings, strict=True)))
    record_line(view, numbers[-1], times[-1])
    view.readings = readings[-1] if readings else view.readings
    return None


def _steps_before(lines: list[Any], kinds: list[Any], place: int, done: int) -> int:
    """Number of steps done when line `place` was written; `done` before the first line."""
    for before in range(place - 1, -1, -1):
        if kinds[before] == Steps.kind:
            numbers = lines[before][Steps.kind]
            return int(numbers[0]) + len(numbers[1]) - 1
    return done


def _are_in_order(numbers: list[Any], times: list[Any]) -> bool:
    """Whether all lines have valid times, and valid, rising sequence numbers."""
    return (
        set(map(type, numbers)) == {int}
        and all(map(lt, numbers, numbers[1:]))
        and checks_of(Record)["seq"]([numbers[0], numbers[-1]])
        and checks_of(Record)["time"](times)
    )


def _columns(rows: list[Any], budgets: list[Any]) -> StepColumns | None:
    """Columns of lines of steps; None if one of them does not have the types that `Steps` declares."""
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {len(STEP_FIELDS)}:
        return None
    checks = checks_of(Steps)
    if not checks["budget"](budgets):
        return None
    firsts, *lists, images, seconds = zip(*rows, strict=True)
    if not (checks["first_step"](firsts) and checks["images"](images) and checks["seconds"](seconds)):
        return None
    if any(set(map(type, values)) != {list} for values in lists):
        return None
    counts, *others = (list(map(len, values)) for values in lists)
    if 0 in counts or any(other != counts for other in others):
        return None
    # Check all lists of a field at once, as one list of all their values.
    flat = [list(chain.from_iterable(values)) for values in lists]
    if not all(checks[name]([values]) for name, values in zip(STEP_FIELDS[1:4], flat, strict=True)):
        return None
    budget: dict[str, float] = next((spent for spent in reversed(budgets) if spent), {})
    return StepColumns.of(list(firsts), counts, flat, list(zip(counts, images, seconds, strict=True)), budget)
