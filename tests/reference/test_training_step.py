"""Steps of the trainer over random configurations, held against the reference."""

from __future__ import annotations

import statistics
from random import Random
from unittest import mock

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from tests.reference.training_cases import SIDES, random_case
from tests.reference.training_comparison import BITS, TOLERANCE, compared
from tests.reference.training_sides import WIDTH
from trainer.model.conv import modules


def random_runs(examples: int) -> settings:
    """The same random configurations every time. A failure names its seed, and a smaller seed would show nothing more."""
    return settings(max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate], database=None)


@pytest.mark.parametrize("stem", SIDES)
@random_runs(74)
@given(random=st.randoms(use_true_random=True))
def test_steps_in_fp32_are_those_of_the_reference(stem: str, random: Random) -> None:
    case = random_case(random, stem=stem)
    comparison = compared(case)
    assume(comparison.decided)
    assert comparison.faults(TOLERANCE["native"]) == [], case


def test_steps_with_products_are_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_WINOGRAD_CHANNELS", WIDTH)
    ways = ("convolve_by_winograd", "convolve_small_map", "convolve_strided")
    with mock.patch.multiple(modules, **{name: mock.Mock(wraps=getattr(modules, name)) for name in ways}):
        decided = 0
        for seed in range(40):
            case = random_case(Random(seed))
            comparison = compared(case, convolution="products")
            decided += comparison.decided
            assert not comparison.decided or comparison.faults(TOLERANCE["products"]) == [], case
        assert decided > 25
        assert all(getattr(modules, name).call_count > 10 for name in ways)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_in_fewer_bits_are_those_of_the_reference_but_for_rounding(precision: str) -> None:
    """The reference rounds in the same places. Sums in another order round some numbers the other way, each by 2**-bits.

    That switches ReLUs, a share of about 2**-bits in each of nine layers, so a single gradient may be further away.
    """
    changes = []
    for seed in range(20):
        case = random_case(Random(seed), max_steps=1)
        comparison = compared(case, precision=precision)
        changes.append(comparison.deviation.change)
        assert comparison.faults(0.3) == [], case
    bits = BITS[precision]
    assert bits is not None
    assert statistics.median(changes) < 4 * 2**-bits
