"""Rules about what a run has to work with: data in time, memory, a log that can be read."""

from __future__ import annotations

from trainer.run.diagnosis.finding import Verdict
from trainer.run.diagnosis.memory_forecast import memory_forecast
from trainer.run.view.run_view import RunView

WAITING_SHARE = 0.15
"""Of the time of steps: a run that waits longer is held up by its data."""

_LEAST_BUDGET_S = 30.0
"""Before which shares of the time say nothing: the first batches come from a cold start."""

_FULL = 0.95
"""Of memory."""


def data_bound(view: RunView) -> Verdict | None:
    """Steps that wait for their images, of late."""
    budget = view.recent_budget
    waiting, computing = budget.get("data", 0.0), budget.get("compute", 0.0)
    total = waiting + computing
    if total < _LEAST_BUDGET_S or waiting < WAITING_SHARE * total:
        return None
    streamed = view.started is None or view.started.choices.get("cache", "none") == "none"
    remedy = "more data.workers, or data.cache=ram" if streamed else "lighter augmentation; data.cache=device on a GPU"
    return Verdict(
        kind="data-bound", level="warning", text="training waits for data",
        evidence=f"{waiting / total:.0%} of the time of steps", remedy=remedy,
    )  # fmt: skip


def lines_left_out(view: RunView) -> Verdict | None:
    """Lines of the log that no reader can use."""
    count = view.bad_records
    if not count:
        return None
    return Verdict(
        kind="lines left out", level="warning", text=lines_missing(count),
        evidence="damaged, or with values that a trainer does not write", remedy="the rest is shown; figures may be missing",
    )  # fmt: skip


def lines_missing(count: int) -> str:
    """Report how many lines of a log are left out."""
    return f"{count:,} line{'s' if count > 1 else ''} of the log left out"


def memory_full(view: RunView) -> Verdict | None:
    """Memory that is nearly used up, of the device or of the machine."""
    readings = view.readings
    # What the allocator keeps for later it gives back before it fails, so only the most that was ever needed of it counts.
    kept = readings.get("reserved_bytes", 0.0) - readings.get("peak_bytes", readings.get("reserved_bytes", 0.0))
    device = readings.get("device_used_bytes", 0.0) - max(kept, 0.0)
    machine = readings.get("system_used_bytes", 0.0)
    return _full(
        device, readings.get("device_total_bytes"), "the device's memory", "a smaller batch, or train.grad_accum_steps"
    ) or _full(
        machine, readings.get("system_total_bytes"), "this machine's memory", "fewer data.workers, or data.cache=none"
    )


def memory_grows(view: RunView) -> Verdict | None:
    """Memory that is used up before the end, if it goes on growing as it does."""
    forecast = memory_forecast(view)
    if forecast is None:
        return None
    return Verdict(
        kind="memory grows", level="warning", text=f"memory lasts until step {forecast.step:,.0f} of {view.total_steps:,}",
        evidence=f"{forecast.grown_bytes / 2**30:.2f} GiB more in {forecast.steps:,.0f} steps",
        remedy="4 shows it; a stop and a resume begin with little",
    )  # fmt: skip


def _full(used: float, total: float | None, what: str, remedy: str) -> Verdict | None:
    if not total or used < _FULL * total:
        return None
    evidence = f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"
    return Verdict(kind="memory", level="warning", text=f"{what} is nearly full", evidence=evidence, remedy=remedy)
