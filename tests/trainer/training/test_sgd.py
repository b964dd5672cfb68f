"""SGD gives the numbers of `torch.optim.SGD` for any memory formats of parameters and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from trainer.training.sgd import SGD

LAYOUTS = (torch.contiguous_format, torch.channels_last)
SHAPES = ((6, 5, 3, 3), (4, 6, 1, 1), (7,), (3, 7))


def _drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def _in_layout(tensors: list[Tensor], layout: torch.memory_format) -> list[Tensor]:
    return [tensor.clone(memory_format=layout) if tensor.ndim == 4 else tensor.clone() for tensor in tensors]


def _optimizer(parameters: list[nn.Parameter], *, momentum: float, fused: bool | None) -> SGD:
    group = {"params": parameters, "momentum": momentum, "weight_decay": 0.01}
    optimizer = SGD([group], lr=0.1, nesterov=momentum > 0, fused=fused)
    for parameter in parameters:
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@pytest.mark.parametrize("fused", [True, None])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("of_parameter", "of_gradient"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_updates_equal_those_of_plain_sgd(
    of_parameter: torch.memory_format, of_gradient: torch.memory_format, momentum: float, fused: bool | None
) -> None:
    actual = [nn.Parameter(tensor) for tensor in _in_layout(_drawn(0), of_parameter)]
    expected = [nn.Parameter(tensor) for tensor in _drawn(0)]
    optimizer = _optimizer(actual, momentum=momentum, fused=fused)
    reference = torch.optim.SGD(
        expected, lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=0.01, foreach=False
    )
    for seed in range(1, 4):
        for parameter, gradient in zip(actual, _in_layout(_drawn(seed), of_gradient), strict=True):
            parameter.grad = gradient
        for parameter, gradient in zip(expected, _drawn(seed), strict=True):
            parameter.grad = gradient
        optimizer.step()
        reference.step()
    torch.testing.assert_close(actual, expected)
    assert actual[0].is_contiguous(memory_format=of_parameter)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_found_inf_keeps_weights_and_momenta(layout: torch.memory_format) -> None:
    parameters = [nn.Parameter(tensor) for tensor in _in_layout(_drawn(0), layout)]
    optimizer = _optimizer(parameters, momentum=0.9, fused=True)
    for parameter, gradient in zip(parameters, _in_layout(_drawn(1), layout), strict=True):
        parameter.grad = gradient
    optimizer.step()
    momenta = [optimizer.state[parameter]["momentum_buffer"] for parameter in parameters]
    before = [tensor.detach().clone() for tensor in (*parameters, *momenta)]
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, (*parameters, *momenta), strict=True))
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, (*parameters, *momenta), strict=True))
