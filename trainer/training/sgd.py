"""SGD with momentum, as `torch.optim.SGD` computes it.

On the CPU torch's fused kernel copies every gradient that is in channels_last, and pairs the wrong numbers where a parameter and
its gradient have different memory layouts (seen with 2.14.1). So all tensors are passed in the order of the parameter's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class SGD(torch.optim.Optimizer):
    """SGD over all parameter groups; momenta must exist (`trainer.training.optimizer`)."""

    found_inf: Tensor | None = None  # float32 (), 1 to skip the step; read only by fused kernels, without a sync

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, nesterov: bool, fused: bool | None) -> None:
        super().__init__(groups, {"lr": lr, "lr_scale": 1.0, "nesterov": nesterov, "fused": fused})
        self._scales_G: Tensor | None = None  # of the groups' learning rates, where those are on the device

    def keep_lrs_on_device(self) -> None:
        """Make the learning rates tensors, which a CUDA graph can read; only fused kernels take them without a wait."""
        device = self.param_groups[0]["params"][0].device
        scales = [group["lr_scale"] for group in self.param_groups]
        self._scales_G = torch.tensor(scales, dtype=torch.float64, device=device)
        self._lrs_G = torch.zeros(len(scales), device=device)
        for group, lr in zip(self.param_groups, self._lrs_G.unbind(), strict=True):
            group["lr"] = lr

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step: that of the classifier; earlier stages get their share of it."""
        if self._scales_G is not None:
            torch.mul(self._scales_G, lr, out=self._lrs_G)
            return
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "the gradients are there before the step"
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if trained:
                self._update(trained, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients = [
            along_memory(parameter, parameter.grad).contiguous()
            for parameter in parameters
            if parameter.grad is not None
        ]
        momenta: list[Tensor | None] = [
            along_memory(parameter, self.state[parameter]["momentum_buffer"]) if group["momentum"] else None
            for parameter in parameters
        ]
        changed = [along_memory(parameter, parameter) for parameter in parameters]
        assert all(tensor is None or tensor.is_contiguous() for tensor in (*changed, *momenta)), (
            "a copy would be changed"
        )
        sgd(
            changed, gradients, momenta, fused=group["fused"], found_inf=self.found_inf if group["fused"] else None,
            weight_decay=group["weight_decay"], momentum=group["momentum"], lr=group["lr"], dampening=0.0,
            nesterov=group["nesterov"], maximize=False,
        )  # fmt: skip


def along_memory(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A view of a tensor of a parameter's shape, with its axes in the order of the parameter's memory."""
    return tensor if parameter.is_contiguous() else tensor.permute(0, 2, 3, 1)
