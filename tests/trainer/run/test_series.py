"""Series, their running means, and the window of the speed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.run.view import series as series_module
from trainer.run.view.series import Series, Smoothed
from trainer.run.view.throughput import StepWindow

VALUES = st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf)


def series_of(values: list[float]) -> Series:
    series = Series()
    series.extend(range(1, len(values) + 1), values)
    return series


@given(values=st.lists(VALUES, max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_a_running_mean_does_not_depend_on_the_pieces_of_its_points(values: list[float], cuts: list[int]) -> None:
    grown, parts = Series(), [0, *sorted(cut for cut in cuts if cut < len(values)), len(values)]
    mean = Smoothed(grown, 0.5)
    for begin, end in pairwise(parts):
        grown.extend(range(begin + 1, end + 1), values[begin:end])
        assert len(mean.y) == end
    assert mean.y.tobytes() == Smoothed(series_of(values), 0.5).y.tobytes()


@given(values=st.lists(VALUES, min_size=1, max_size=300))
def test_a_running_mean_is_the_weighted_mean_of_the_finite_values(values: list[float]) -> None:
    mean = Smoothed(series_of(values), 0.5).last
    finite = [value for value in values if math.isfinite(value)]
    weights = [0.5**age for age in reversed(range(len(finite)))]
    expected = (
        math.fsum(w * v for w, v in zip(weights, finite, strict=True)) / math.fsum(weights) if finite else math.nan
    )
    assert mean == pytest.approx(expected, rel=1e-9, abs=1e-6, nan_ok=True)


def test_averaging_in_chunks_gives_the_same_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [math.sin(n) if n % 1000 else math.nan for n in range(3000)]
    whole = Smoothed(series_of(values), 0.9).y
    monkeypatch.setattr(series_module, "_CHUNK", 7)
    assert Smoothed(series_of(values), 0.9).y.tobytes() == whole.tobytes()


def test_a_running_mean_restarts_after_points_were_dropped() -> None:
    series = series_of([1.0, 2.0, 3.0])
    mean = Smoothed(series, 0.9)
    assert len(mean.y) == 3
    series.drop_after(1)
    assert list(mean.y) == [1.0]


def test_speed_is_that_of_the_last_half_minute() -> None:
    window = StepWindow()
    assert (window.images_per_s, window.step_s) == (None, None)
    for _ in range(10):
        window.add([(10, 1000, 10.0)])
    for _ in range(4):
        window.add([(10, 500, 10.0)])
    assert window.images_per_s == pytest.approx(50.0)
    assert window.step_s == pytest.approx(1.0)
    window.add([(1, 8, 100.0)])
    assert window.images_per_s == pytest.approx(508 / 110), "the two newest are kept, however long they took"
