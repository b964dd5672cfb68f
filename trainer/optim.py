"""The optimizer and its parameter groups."""

from __future__ import annotations

import torch
from torch import nn

from trainer.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.SGD:
    """SGD over the parameters that are trained; the rate is set before every step.

    Args:
        model: On its device, with frozen parameters marked.
        config: Momentum, Nesterov and weight decay.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Batch-norm weights and all biases are the vectors among the parameters.
            (decayed if config.decay_bn_bias or parameter.ndim > 1 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    device = decayed[0].device
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=True if device.type in ("cpu", "cuda") else None,
    )
    load_momentum_state(model, optimizer, {})
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of the next step, for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def momentum_state(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, torch.Tensor]:
    """Momentum buffers by parameter name; parameters that are not trained have none."""
    buffers = {}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            buffers[name] = buffer
    return buffers


def load_momentum_state(model: nn.Module, optimizer: torch.optim.SGD, buffers: dict[str, torch.Tensor]) -> None:
    """Put momentum buffers back, in the memory layout of their parameters; those that are missing begin at zero.

    A momentum of zero gives the same first step, to the bit, as none, and is defined when that step is left out.
    """
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and optimizer.defaults["momentum"]:
            buffer = torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
            if name in buffers:
                buffer.copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
