"""Memory that will not last to the end of a run is told, and other memory is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.trainer.run.test_diagnose import started
from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.diagnosis.memory_forecast import Forecast, memory_forecast, memory_left
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import Monitored, Opened, StateChanged
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView

GIB = 2.0**30


def run(used: Callable[[int], float], *, steps: int = 400, on_gpu: bool = False, free: float = 4.0) -> RunView:
    """A run of 1,000 steps, so many of them done, with a reading every ten."""
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


def test_a_leak_is_told_with_the_step_at_which_memory_is_used_up() -> None:
    # 10 MiB a step; 4 GiB are left.
    view = run(lambda step: 1 + step / 100)
    forecast = memory_forecast(view)
    assert forecast is not None
    assert forecast.step == pytest.approx(400 + 400, abs=5)
    assert [verdict.text for verdict in verdicts(view)] == ["memory lasts until step 800 of 1,000"]


def test_a_leak_on_a_gpu_is_held_against_its_own_memory() -> None:
    view = run(lambda step: 5 + step / 100, on_gpu=True)
    forecast = memory_forecast(view)
    assert memory_left(view) == pytest.approx((16 - 8.91) * GIB)
    assert forecast is None, "it lasts to the end"
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
    ids=["steady", "noise", "a cache", "shrinks", "a jump"],
)
def test_memory_that_lasts_is_not_told(used: Callable[[int], float]) -> None:
    assert memory_forecast(run(used)) is None


def test_nothing_is_told_of_few_readings() -> None:
    assert memory_forecast(run(lambda step: step / 10, steps=100)) is None


def by_thirds(
    *levels: float, readings: int = 24, free: float = 1.0, total_steps: int = 1000, opened: Opened | None = None,
    without: str = "", spike: int | None = None,
) -> Forecast | None:  # fmt: skip
    """Readings in GiB after steps 10, 20, ...: 0.5 in the older half, and a level in each third of the newer one.

    Args:
        readings: Number of them; the last third takes what is left over.
        free: GiB in the end, of 16.
        without: A reading that is not taken.
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


def test_the_forecast_goes_on_as_the_medians_of_the_last_thirds() -> None:
    # From 1.0 in steps 130 to 160 to 1.4 in steps 210 to 240 are 0.4 GiB in 80 steps; 1 GiB lasts for 200 more.
    forecast = by_thirds(1.0, 1.2, 1.4)
    assert forecast is not None
    assert forecast.step == pytest.approx(240 + 200)
    assert forecast.grown_bytes == pytest.approx(0.4 * GIB)
    assert forecast.steps == 80
    for place in range(24):
        assert by_thirds(1.0, 1.2, 1.4, spike=place) == forecast, "a single reading moves no median"


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((1.0, 1.161, 1.322), True), ((1.0, 1.159, 1.318), False),  # 2 % of 16 GiB are 0.32
        ((1.0, 1.101, 1.4), True), ((1.0, 1.099, 1.4), False),  # a quarter of the rise in each half of it
        ((1.0, 1.299, 1.4), True), ((1.0, 1.301, 1.4), False),
        ((1.4, 1.2, 1.0), False), ((1.0, 0.5, 1.4), False), ((1.0, 2.0, 1.4), False),
    ],
)  # fmt: skip
def test_memory_grows_where_each_third_lies_a_fair_part_above_the_one_before(
    levels: tuple[float, float, float], expected: bool
) -> None:
    assert (by_thirds(*levels) is not None) is expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"readings": 24}, True), ({"readings": 23}, False),  # twelve in the older half
        ({"total_steps": 441}, True), ({"total_steps": 439}, False),  # used up at step 440
        ({"free": 3.79}, True), ({"free": 3.81}, False),  # which last for 758 and 762 steps, of 760 that are left
        ({"free": 0.0}, True),
        ({"without": "system_total_bytes"}, False), ({"without": "system_used_bytes"}, False),
    ],
)  # fmt: skip
def test_each_condition_of_the_forecast_counts(change: dict[str, Any], expected: bool) -> None:
    assert (by_thirds(1.0, 1.2, 1.4, **change) is not None) is expected


@pytest.mark.parametrize(("epochs", "expected"), [(0, True), (1, False)])
def test_only_readings_with_images_of_the_size_of_now_count(epochs: int, expected: bool) -> None:
    # An epoch of 50 steps with smaller images leaves 19 of 24 readings.
    data = {"progressive": [[8, epochs]] if epochs else [], "image_size": 16}
    opened = Opened(run="m", directory="m", pid=1, host="h", resume=False, config={"data": data})
    assert (by_thirds(1.0, 1.2, 1.4, opened=opened) is not None) is expected
    assert by_thirds(1.0, 1.2, 1.4, opened=opened, readings=40) is not None
