"""Memory that will not last to the end of a run is told, and other memory is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.trainer.test_verdicts import started
from trainer.run import events as ev
from trainer.run.events import Event, Record
from trainer.run.memory_forecast import memory_forecast, memory_left
from trainer.run.verdicts import verdicts
from trainer.run.view import RunView

GIB = 2.0**30


def run(used: Callable[[int], float], *, steps: int = 400, on_gpu: bool = False, free: float = 4.0) -> RunView:
    """A run of 1,000 steps, so many of them done, with a reading every ten."""
    view = RunView()
    events: list[Event] = [started(), ev.StateChanged(state="training")]
    for first in range(1, steps, 10):
        events.append(
            ev.Steps(first_step=first, loss=[1.0] * 10, accuracy=[0.5] * 10, lr=[0.1] * 10, images=80, seconds=1.0)
        )
        bytes_used = used(first) * GIB
        process = {"process_bytes": bytes_used, "system_used_bytes": (16 - free) * GIB, "system_total_bytes": 16 * GIB}
        device = {"device_used_bytes": bytes_used, "device_total_bytes": 16 * GIB}
        events.append(ev.Monitored(readings=process | (device if on_gpu else {})))
    for seq, event in enumerate(events):
        view.apply(Record(seq=seq, time=float(seq), event=event))
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
