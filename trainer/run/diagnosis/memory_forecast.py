"""Predicts whether memory will run out before the end of the run."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from dataclasses import dataclass

from trainer.run.view.run_view import RunView

_LEAST = 12  # readings in the older half, for a forecast
_GROWN = 0.02  # growth in the newer half of the readings, as a share of all memory: less is noise, or ends


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast of a shortage of memory, if it keeps growing as in the newer half of the run."""

    step: float  # at which memory runs out
    grown_bytes: float  # in that half
    steps: float  # in that half


def memory_forecast(view: RunView) -> Forecast | None:
    """Forecast when memory runs out; None if it lasts to the end of the run.

    Only readings at the current image size count, of these the newer half, as the medians of its thirds. Each median
    must exceed the one before by a fair part of the whole growth: caches that fill up and single jumps do not continue.
    """
    memory, left = view.memory, memory_left(view)
    since = max((begin for begin, _, _ in view.image_sizes() if begin <= view.step), default=0)
    begin = bisect_right(memory.x, since)
    half = (begin + len(memory)) // 2
    third = (len(memory) - half) // 3
    if half - begin < _LEAST or left is None:
        return None
    middles = [
        (statistics.median(memory.x[part : part + third]), statistics.median(memory.y[part : part + third]))
        for part in (half, half + third, half + 2 * third)
    ]
    (first_step, first), (_, second), (last_step, last) = middles
    risen = last - first
    steady = min(second - first, last - second) >= risen / 4
    if risen < _GROWN * view.readings[_total_name(view)] or not steady or last_step <= first_step:
        return None
    step = view.step + left / (risen / (last_step - first_step))
    return Forecast(step=step, grown_bytes=risen, steps=last_step - first_step) if step < view.total_steps else None


def memory_left(view: RunView) -> float | None:
    """Free bytes of memory where the run computes: on a GPU or on this machine."""
    used = "device_used_bytes" if "device_used_bytes" in view.readings else "system_used_bytes"
    total = view.readings.get(_total_name(view))
    return None if total is None or used not in view.readings else max(total - view.readings[used], 0.0)


def _total_name(view: RunView) -> str:
    return "device_total_bytes" if "device_used_bytes" in view.readings else "system_total_bytes"
