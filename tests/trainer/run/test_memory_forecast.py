"""Forecasts of memory that will not last until the end of a run."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.diagnosed import started
from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.diagnosis.memory_forecast import Forecast, memory_forecast, memory_left
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import Monitored, Opened, StateChanged
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView

GIB = 2.0**30


def run(used: Callable[[int], float], *, steps: int = 400, on_gpu: bool = False, free: float = 4.0) -> RunView:
    """A run of 1,000 steps, of which `steps` are done, with a reading every ten."""
    view = RunView()
    events: list[Event] = [started(), StateChanged(state="training")]
    for first in range(1, steps, 10):
        events.append(
            Steps(first_step=first, loss=[1.0] * 10, accuracy=[0.5] * 10, lr=[0.1] * 10, images=80, seconds=1.0)
        )
        bytes_used = used(first) * GIB
        process = {"process_bytes": bytes_used, "system_used_bytes": (16 - free) * GIB, "system_total_bytes": 16 * GIB}
        device = {"device_used_bytes": bytes_used, "device_total_bytes": 16 * GIB}
        events.append(Monitored(readings=process | (device if on_gpu else {})))
    for seq, event in enumerate(events):
        apply(view, Record(seq=seq, time=float(seq), event=event))
    assert view.bad_records == 0
    return view


def test_a_leak_is_reported_with_the_step_at_which_memory_ends() -> None:
    # 0.01 GiB per step; 4 GiB are left.
    view = run(lambda step: 1 + step / 100)
    forecast = memory_forecast(view)
    assert forecast is not None
    assert forecast.step == pytest.approx(400 + 400, abs=5)
    assert [verdict.text for verdict in verdicts(view)] == ["memory lasts until step 800 of 1,000"]


def test_a_leak_on_a_gpu_is_compared_with_the_gpus_memory() -> None:
    view = run(lambda step: 5 + step / 100, on_gpu=True)
    forecast = memory_forecast(view)
    assert memory_left(view) == pytest.approx((16 - 8.91) * GIB)
    assert forecast is None, "memory lasts until the end"
    forecast = memory_forecast(run(lambda step: 8 + step / 80, on_gpu=True))
    assert forecast is not None
    assert forecast.step == pytest.approx(400 + 80 * (8 - 391 / 80), abs=5)


@pytest.mark.parametrize(
    "used",
    [
        lambda step: 2.0,
        lambda step: 2.0 + random.Random(step).random() / 4,
        lambda step: min(1 + step / 50, 5.0),  # a cache that fills up
        lambda step: 3 - step / 1000,
        lambda step: 2.0 if step < 300 else 4.0,  # larger images
    ],
    ids=["steady", "noise", "cache", "shrinking", "jump"],
)
def test_memory_that_lasts_is_not_reported(used: Callable[[int], float]) -> None:
    assert memory_forecast(run(used)) is None


def test_few_readings_give_no_forecast() -> None:
    assert memory_forecast(run(lambda step: step / 10, steps=100)) is None


def by_thirds(
    *levels: float, readings: int = 24, free: float = 1.0, total_steps: int = 1000, opened: Opened | None = None,
    without: str = "", spike: int | None = None,
) -> Forecast | None:  # fmt: skip
    """The forecast for readings after steps 10, 20, ...: 0.5 GiB in the older half, a level in each third of the newer one.

    Args:
        readings: Number of readings; the last third takes the remainder.
        free: GiB of 16 that are free at the end.
        without: Name of a missing reading.
        spike: Index of a reading of 9 GiB.
    """
    older = readings // 2
    third = (readings - older) // 3
    used = (
        [0.5] * older
        + [level for level in levels for _ in range(third)]
        + [levels[-1]] * (readings - older - 3 * third)
    )
    events: list[Event] = [*([opened] if opened else []), started(total_steps=total_steps)]
    for number, level in enumerate(used):
        events.append(
            Steps(
                first_step=10 * number + 1, loss=[1.0] * 10, accuracy=[0.5] * 10, lr=[0.1] * 10, images=80, seconds=1.0
            )
        )
        used_gib = {"process_bytes": level, "system_used_bytes": 16 - free, "system_total_bytes": 16.0}
        if number == spike:
            used_gib["process_bytes"] = 9.0
        events.append(Monitored(readings={name: size * GIB for name, size in used_gib.items() if name != without}))
    view = RunView()
    for seq, event in enumerate(events):
        apply(view, Record(seq=seq, time=float(seq), event=event))
    return memory_forecast(view)


def test_the_forecast_extrapolates_medians_of_thirds() -> None:
    # From 1.0 in steps 130 to 160 to 1.4 in steps 210 to 240 are 0.4 GiB in 80 steps; 1 GiB lasts for 200 more.
    forecast = by_thirds(1.0, 1.2, 1.4)
    assert forecast is not None
    assert forecast.step == pytest.approx(240 + 200)
    assert forecast.grown_bytes == pytest.approx(0.4 * GIB)
    assert forecast.steps == 80
    for place in range(24):
        assert by_thirds(1.0, 1.2, 1.4, spike=place) == forecast, "a single reading does not move a median"


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((1.0, 1.161, 1.322), True), ((1.0, 1.159, 1.318), False),  # 2 % of 16 GiB are 0.32
        ((1.0, 1.101, 1.4), True), ((1.0, 1.099, 1.4), False),  # at least a quarter of the rise in each half
        ((1.0, 1.299, 1.4), True), ((1.0, 1.301, 1.4), False),
        ((1.4, 1.2, 1.0), False), ((1.0, 0.5, 1.4), False), ((1.0, 2.0, 1.4), False),
    ],
)  # fmt: skip
def test_memory_grows_only_if_each_third_is_higher_than_the_previous(
    levels: tuple[float, float, float], expected: bool
) -> None:
    assert (by_thirds(*levels) is not None) is expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"readings": 24}, True), ({"readings": 23}, False),  # twelve in the older half
        ({"total_steps": 441}, True), ({"total_steps": 439}, False),  # used up at step 440
        ({"free": 3.79}, True), ({"free": 3.81}, False),  # lasts for 758 and 762 of the remaining 760 steps
        ({"free": 0.0}, True),
        ({"without": "system_total_bytes"}, False), ({"without": "system_used_bytes"}, False),
    ],
)  # fmt: skip
def test_each_condition_of_the_forecast_counts(change: dict[str, Any], expected: bool) -> None:
    assert (by_thirds(1.0, 1.2, 1.4, **change) is not None) is expected


@pytest.mark.parametrize(("epochs", "expected"), [(0, True), (1, False)])
def test_only_readings_at_the_current_image_size_count(epochs: int, expected: bool) -> None:
    # An epoch of 50 steps with smaller images leaves 19 of 24 readings.
    data = {"progressive": [[8, epochs]] if epochs else [], "image_size": 16}
    opened = Opened(run="m", directory="m", pid=1, host="h", resume=False, config={"data": data})
    assert (by_thirds(1.0, 1.2, 1.4, opened=opened) is not None) is expected
    assert by_thirds(1.0, 1.2, 1.4, opened=opened, readings=40) is not None
