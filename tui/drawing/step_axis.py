"""The labels below curves: epochs, steps, or time; and round distances between labels. Pure."""

from __future__ import annotations

import math

from trainer.run.view.run_view import RunView
from tui.drawing import format as fmt

AXES = ("epoch", "step", "time")  # units of the axis below curves; distances are always those of steps
_EPOCH_CELLS = 8  # width of a label with its gap
_STEP_CELLS = 12  # the same
_TIMES = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Label distances in seconds; above these, whole days."""


def step_labels(view: RunView, left: float, right: float, width: int, *, axis: str) -> list[tuple[float, str]]:
    """Positions and texts of labels in the unit `axis` (of `AXES`); in steps if less than two epochs or seconds are visible."""
    if view.started is None:
        return []
    per_epoch, axis = view.started.steps_per_epoch, _counted(view, left, right, axis)
    if axis == "time":
        return _time_labels(view, left, right, width // _STEP_CELLS)
    if axis == "epoch":
        return _labels(left / per_epoch, right / per_epoch, width // _EPOCH_CELLS, "epoch", per_epoch)
    return _labels(left, right, width // _STEP_CELLS, "step", 1)


def _counted(view: RunView, left: float, right: float, axis: str) -> str:
    """The unit that an axis uses between two steps."""
    if axis == "time":
        return axis if view.elapsed_at(right) - view.elapsed_at(left) >= 2.0 else "step"
    per_epoch = view.steps_per_epoch
    return axis if per_epoch and right - left >= 2 * per_epoch else "step"


def place_of(view: RunView, step: float, edges: tuple[float, float], axis: str) -> str:
    """A step in the unit of the axis between two steps, without the unit."""
    axis = _counted(view, *edges, axis)
    if axis == "time":
        return fmt.duration(view.elapsed_at(step))
    if axis == "epoch":
        return f"{step / view.steps_per_epoch:.2f}"
    return f"{round(step):,}"


def _time_labels(view: RunView, left: float, right: float, wanted: int) -> list[tuple[float, str]]:
    """Round times since the start at their positions; each of them once."""
    begin, end = view.elapsed_at(left), view.elapsed_at(right)
    least = (end - begin) / max(wanted, 1)
    stride = next((seconds for seconds in _TIMES if seconds >= least), math.ceil(least / _TIMES[-1]) * _TIMES[-1])
    times = range(math.ceil(begin / stride - 1e-9) * stride, math.floor(end + 1e-9) + 1, stride)
    found = [(_step_at(view, left, right, time), fmt.duration(time)) for time in times]
    return [(step, text if index else f"time {text}") for index, (step, text) in enumerate(found)]


def _step_at(view: RunView, low: float, high: float, seconds: float) -> float:
    """The step at a time since the start, between two steps, by bisection: time only increases from step to step."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if view.elapsed_at(middle) < seconds else (low, middle)
    return high


def _labels(left: float, right: float, wanted: int, unit: str, size: int) -> list[tuple[float, str]]:
    stride = int(nice_step(math.ceil((right - left) / max(wanted, 1))))
    numbers = range(math.ceil(left / stride - 1e-9) * stride, math.floor(right + 1e-9) + 1, stride)
    return [(float(n * size), f"{n:,}" if index else f"{unit} {n:,}") for index, n in enumerate(numbers)]


def nice_step(raw: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `raw`."""
    if raw <= 0 or not math.isfinite(raw):
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * (1 - 1e-9))
