"""SGD: the numbers of `torch.optim.SGD`, however parameters and gradients lie in memory."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from trainer.sgd import SGD

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("fused", [True, None])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("of_parameter", "of_gradient"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_updates_are_those_of_plain_sgd(
    of_parameter: torch.memory_format, of_gradient: torch.memory_format, momentum: float, fused: bool | None
) -> None:
    torch.manual_seed(0)
    first = torch.randn(6, 5, 3, 3)
    ours = nn.Parameter(first.clone(memory_format=of_parameter))
    theirs = nn.Parameter(first.clone())
    group = {"params": [ours], "momentum": momentum, "weight_decay": 0.01}
    optimizer = SGD([group], lr=0.1, nesterov=momentum > 0, fused=fused)
    optimizer.state[ours]["momentum_buffer"] = torch.zeros_like(ours)
    reference = torch.optim.SGD(
        [theirs], lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=0.01, foreach=False
    )
    for _ in range(3):
        gradient = torch.randn(6, 5, 3, 3)
        ours.grad, theirs.grad = gradient.clone(memory_format=of_gradient), gradient
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)
    assert ours.is_contiguous(memory_format=of_parameter)
