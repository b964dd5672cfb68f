"""Rules about the resources of a run: data on time, memory, a readable log."""

from __future__ import annotations

from trainer.run.diagnosis.finding import Verdict
from trainer.run.diagnosis.memory_forecast import memory_forecast
from trainer.run.view.run_view import RunView

WAITING_SHARE = 0.15  # of step time, above which a run is data-bound
_LEAST_BUDGET_S = 30.0  # for a verdict: the first batches come from a cold start
_FULL = 0.95  # share of memory


def data_bound(view: RunView) -> Verdict | None:
    """Recent steps that wait for their images."""
    budget = view.recent_budget
    waiting, computing = budget.get("data", 0.0), budget.get("compute", 0.0)
    total = waiting + computing
    if total < _LEAST_BUDGET_S or waiting < WAITING_SHARE * total:
        return None
    streamed = view.started is None or view.started.choices.get("cache", "none") == "none"
    remedy = "more data.workers, or data.cache=ram" if streamed else "lighter augmentation; data.cache=device on a GPU"
    return Verdict(
        kind="data-bound", level="warning", text="training waits for data",
        evidence=f"{waiting / total:.0%} of step time", remedy=remedy,
    )  # fmt: skip


def lines_skipped(view: RunView) -> Verdict | None:
    """Lines of the log that no reader can use."""
    count = view.bad_records
    if not count:
        return None
    return Verdict(
        kind="lines left out", level="warning", text=lines_missing(count),
        evidence="damaged, or with invalid values", remedy="the rest is shown; values may be missing",
    )  # fmt: skip


def lines_missing(count: int) -> str:
    """Report how many lines of a log are skipped."""
    return f"{count:,} line{'s' if count > 1 else ''} of the log skipped"


def memory_full(view: RunView) -> Verdict | None:
    """Memory of the device or the machine that is nearly used up."""
    readings = view.readings
    # The allocator releases cached memory before it fails, so only its peak use counts.
    kept = readings.get("reserved_bytes", 0.0) - readings.get("peak_bytes", readings.get("reserved_bytes", 0.0))
    device = readings.get("device_used_bytes", 0.0) - max(kept, 0.0)
    machine = readings.get("system_used_bytes", 0.0)
    for used, key, what, remedy in (
        (device, "device_total_bytes", "the device's memory", "a smaller batch, or train.grad_accum_steps"),
        (machine, "system_total_bytes", "this machine's memory", "fewer data.workers, or data.cache=none"),
    ):
        total = readings.get(key)
        if total and used >= _FULL * total:
            evidence = f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"
            return Verdict(
                kind="memory", level="warning", text=f"{what} is nearly full", evidence=evidence, remedy=remedy
            )
    return None


def memory_grows(view: RunView) -> Verdict | None:
    """Memory that will run out before the end if it keeps growing at the current rate."""
    forecast = memory_forecast(view)
    if forecast is None:
        return None
    return Verdict(
        kind="memory grows", level="warning", text=f"memory lasts until step {forecast.step:,.0f} of {view.total_steps:,}",
        evidence=f"{forecast.grown_bytes / 2**30:.2f} GiB more in {forecast.steps:,.0f} steps",
        remedy="4 shows it; stopping and resuming frees memory",
    )  # fmt: skip
