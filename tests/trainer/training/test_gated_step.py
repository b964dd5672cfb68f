"""The update gate alone: a single non-finite number anywhere skips the whole step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.trainer.training.test_nonfinite_gate import OPTIM, batch, small_model, state_of
from trainer.training.nonfinite_gate import NonFiniteGate
from trainer.training.optimizer import build_optimizer

FINITE = torch.tensor(1.5)


def last_variance(gate: NonFiniteGate, value: float) -> None:
    gate.statistics[-1] = value


def first_mean(gate: NonFiniteGate, value: float) -> None:
    gate.statistics[0] = value


Spoil = Callable[[NonFiniteGate, float], None]


def take_step(
    *, loss: Tensor = FINITE, norm: Tensor = FINITE, spoil: Spoil | None = None, value: float = 0.0, fused: bool = True
) -> tuple[float, list[bool], NonFiniteGate]:  # fmt: skip
    """A step with a real gradient, for which the gate is given a loss and a norm.

    Args:
        spoil: Changes the statistics of the forward pass.
        fused: Whether the optimizer has fused kernels, as it has except on an Apple GPU.

    Returns:
        The gate's result, and for each weight, statistic and momentum whether it is unchanged.
    """
    model = small_model()
    optimizer = build_optimizer(model, OPTIM, precision="fp32")
    for group in optimizer.param_groups:
        group["fused"] = fused
    gate = NonFiniteGate(model, optimizer)
    before = state_of(model, optimizer)
    gate.begin()
    model(batch(0)).square().mean().backward()
    if spoil is not None:
        spoil(gate, value)
    skipped = gate.step(loss, norm)
    assert (skipped.dtype, skipped.shape) == (torch.float32, ())
    pairs = zip(before, state_of(model, optimizer), strict=True)
    return float(skipped), [torch.equal(a, b) for a, b in pairs], gate


@pytest.mark.parametrize("fused", [True, False])
def test_a_finite_step_changes_every_weight_statistic_and_momentum(fused: bool) -> None:
    skipped, same, _ = take_step(fused=fused)
    assert skipped == 0.0
    assert len(same) == 12  # five weights and their momenta, a mean and a variance
    assert not any(same)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "norm", "mean", "variance"])
def test_one_non_finite_number_skips_the_step(where: str, value: float, fused: bool) -> None:
    bad = torch.tensor(value)
    spoil: dict[str, Spoil] = {"mean": first_mean, "variance": last_variance}
    skipped, same, _ = take_step(
        loss=bad if where == "loss" else FINITE, norm=bad if where == "norm" else FINITE, spoil=spoil.get(where),
        value=value, fused=fused,
    )  # fmt: skip
    assert skipped == 1.0
    assert all(same)


@pytest.mark.parametrize("value", [0.0, -5.0, 1e30])
def test_any_finite_number_is_accepted(value: float) -> None:
    assert take_step(loss=torch.tensor(value))[0] == take_step(norm=torch.tensor(abs(value)))[0] == 0.0
    skipped, _, gate = take_step(spoil=last_variance, value=value)
    assert skipped == 0.0
    assert float(gate.statistics[-1]) == pytest.approx(value)


def test_undo_restores_the_statistics_of_the_last_begin() -> None:
    model = small_model()
    gate = NonFiniteGate(model, build_optimizer(model, OPTIM, precision="fp32"))
    model(batch(0))
    begun = gate.statistics.clone()
    gate.begin()
    model(batch(1))
    model(batch(2))
    assert not torch.equal(gate.statistics, begun)
    gate.undo()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.equal(torch.cat([norm.running_mean, norm.running_var]), begun)
