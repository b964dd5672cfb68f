"""Steps of the trainer compared with the reference, for random configurations."""

from __future__ import annotations

import statistics
from random import Random
from typing import Literal
from unittest import mock

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from tests.reference.training_cases import SIDES, random_case
from tests.reference.training_comparison import BITS, TOLERANCE, compared
from tests.reference.training_sides import WIDTHS
from trainer.model.conv import modules


def random_runs(examples: int) -> settings:
    """The same random configurations every time, without shrinking: a failure names its seed."""
    return settings(max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate], database=None)


@pytest.mark.parametrize("stem", SIDES)
@random_runs(74)
@given(random=st.randoms(use_true_random=True))
def test_steps_in_fp32_equal_those_of_the_reference(stem: str, random: Random) -> None:
    case = random_case(random, stem=stem)
    comparison = compared(case)
    assume(comparison.decided)
    assert comparison.faults(TOLERANCE["native"]) == [], case


def test_steps_with_products_equal_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "WINOGRAD_CHANNELS", WIDTHS[0])
    algorithms = ("convolve_by_winograd", "convolve_small_map", "convolve_strided")
    with mock.patch.multiple(modules, **{name: mock.Mock(wraps=getattr(modules, name)) for name in algorithms}):
        decided = 0
        for seed in range(40):
            case = random_case(Random(seed))
            comparison = compared(case, convolution="products")
            decided += comparison.decided
            assert not comparison.decided or comparison.faults(TOLERANCE["products"]) == [], case
        assert decided > 25
        assert all(getattr(modules, name).call_count > 10 for name in algorithms)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_in_fewer_bits_equal_the_references_up_to_rounding(precision: Literal["bf16", "fp16"]) -> None:
    """The reference rounds in the same places, but sums in another order round some numbers differently, by 2**-bits.

    That switches a share of about 2**-bits of the ReLUs in each of nine layers, so a single gradient may deviate more.
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
