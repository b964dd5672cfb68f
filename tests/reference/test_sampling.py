"""`trainer.data.draws`: splitmix64 in whole numbers, and the distribution and independence of the draws of each stream.

Chi-square statistics of k cells have mean k - 1 and variance 2 (k - 1). The draws are hashes of fixed keys, so the bounds of six
standard deviations hold always or never. A random source passes them in all but 1 of 10,000 (10 cells) or 10**6 cases (100
cells). Draws that are more even than chance fail as well.
"""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.data.draws import EpochDraws, Stream, draw

N = 40_000
POSITIONS = torch.arange(N)
MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The generator's next output. Source: Steele, Lea, Flood (2014), as in Vigna's public C code."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def mixed(z: int) -> int:
    """The finalizer alone."""
    return splitmix64((z - 0x9E3779B97F4A7C15) & MASK)


@given(
    seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6), stream=st.sampled_from(Stream),
    positions=st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
)  # fmt: skip
def test_a_draw_is_the_upper_53_bits_of_a_chained_splitmix64(
    seed: int, epoch: int, stream: Stream, positions: list[int]
) -> None:
    key = 0
    for part in (seed, epoch, stream):
        key = splitmix64((key + part) & MASK)
    wanted = [mixed((position * 0x9E3779B97F4A7C15 + key) & MASK) >> 11 for position in positions]
    drawn = draw(torch.tensor(positions), seed=seed, epoch=epoch, stream=stream)
    assert drawn.tolist() == wanted
    draws = EpochDraws(seed)
    draws.begin(epoch)
    assert int(draws.epoch) == epoch
    assert draws.whole(torch.tensor(positions), stream).tolist() == wanted
    uniform = draws.uniform(torch.tensor(positions), stream)
    assert uniform.tolist() == [(value >> 29) / 2**24 for value in wanted]
    below = draws.below(7, torch.tensor(positions), stream)
    assert below.tolist() == [value % 7 for value in wanted]


def chi_square(cells: Tensor, count: int) -> float:
    """Deviation of the statistic of equally likely cells 0 to count - 1 from its mean, in standard deviations."""
    observed = torch.bincount(cells.flatten(), minlength=count).double()
    expected = cells.numel() / count
    assert len(observed) == count
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return abs(statistic - (count - 1)) / math.sqrt(2 * (count - 1))


def cells_of(stream: Stream, count: int, *, seed: int = 3, epoch: int = 1, positions: Tensor = POSITIONS) -> Tensor:
    """The number of each draw's part among `count` equal parts of [0, 1)."""
    return (EpochDraws(seed, epoch=epoch).uniform(positions, stream).double() * count).long()


@pytest.mark.parametrize("stream", Stream)
def test_every_stream_is_uniform_in_its_high_and_low_bits(stream: Stream) -> None:
    drawn = draw(POSITIONS, seed=3, epoch=1, stream=stream)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 2**53
    assert chi_square(cells_of(stream, 100), 100) < 6
    assert chi_square(drawn % 97, 97) < 6, "as an integer below a limit"
    ones = torch.stack([(drawn[:9000] >> bit) & 1 for bit in range(53)]).double().mean(1)
    assert float((ones - 0.5).abs().max()) < 6 * 0.5 / math.sqrt(9000), "each bit is set in half of the draws"


def joint(first: Tensor, second: Tensor) -> float:
    """Chi-square of pairs of two draws in ten parts each, in standard deviations."""
    return chi_square(first * 10 + second, 100)


@pytest.mark.parametrize("stream", Stream)
def test_draws_of_other_positions_epochs_and_seeds_are_independent(stream: Stream) -> None:
    cells = cells_of(stream, 10)
    for lag in (1, 2, 8, 64, 512):
        assert joint(cells[:-lag], cells[lag:]) < 6, f"{lag} positions away"
    for lag in (1, 2, 7):
        assert joint(cells, cells_of(stream, 10, epoch=1 + lag)) < 6, f"{lag} epochs later"
        assert joint(cells, cells_of(stream, 10, seed=3 + lag)) < 6, f"a seed that is {lag} larger"
    # Seeds and epochs that change together must not give the same draws.
    assert joint(cells, cells_of(stream, 10, seed=4, epoch=0)) < 6
    assert joint(cells, cells_of(stream, 10, seed=2, epoch=2)) < 6
    for epoch in (0, 2):
        assert not set(values_of(stream, epoch)) & set(values_of(stream, 1)), "no draw of 53 bits occurs twice"


def values_of(stream: Stream, epoch: int) -> list[int]:
    return draw(POSITIONS[:2000], seed=3, epoch=epoch, stream=stream).tolist()


def test_streams_are_independent() -> None:
    cells = {stream: cells_of(stream, 10) for stream in Stream}
    worst = {(a.name, b.name): joint(cells[a], cells[b]) for a, b in combinations(Stream, 2)}
    assert len(worst) == len(Stream) * (len(Stream) - 1) // 2
    assert max(worst.values()) < 6, max(worst, key=worst.__getitem__)


def test_the_draws_of_one_position_over_epochs_are_uniform() -> None:
    drawn = torch.stack([cells_of(Stream.FLIP, 10, epoch=epoch, positions=torch.arange(40)) for epoch in range(1000)])
    assert chi_square(drawn, 10) < 6
    for position in range(40):
        assert chi_square(drawn[:, position], 10) < 6
    assert joint(drawn[:-1], drawn[1:]) < 6


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 2**31), limit=st.integers(1, 1 << 20)
)
def test_draws_have_the_shape_of_the_positions_and_do_not_depend_on_others(
    shape: list[int], seed: int, limit: int
) -> None:
    positions = torch.arange(math.prod(shape)).reshape(shape)
    draws = EpochDraws(seed)
    drawn = draws.below(limit, positions, Stream.CROP_X)
    assert drawn.shape == positions.shape
    for position, value in zip(positions.flatten().tolist(), drawn.flatten().tolist(), strict=True):
        alone = draws.below(limit, torch.tensor([position]), Stream.CROP_X)
        assert value == int(alone) < limit


def test_the_numbers_of_streams_are_fixed() -> None:
    """Another number would change the images of every resumed run."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "ORDER": 1, "FLIP": 2, "CROP_Y": 3, "CROP_X": 4, "CUTOUT_Y": 5, "CUTOUT_X": 6, "DROPOUT": 7, "VALIDATION": 8,
        "CROP_AREA": 9, "CROP_ASPECT": 10, "ERASE": 11, "ERASE_AREA": 12, "ERASE_ASPECT": 13, "ERASE_Y": 14, "ERASE_X": 15,
        "TRIVIAL_OPERATION": 16, "TRIVIAL_STRENGTH": 17, "TRIVIAL_SIGN": 18, "MIX_KIND": 19, "MIX_SHARE": 20, "MIX_Y": 21,
        "MIX_X": 22, "BALANCE": 23,
    }  # fmt: skip
