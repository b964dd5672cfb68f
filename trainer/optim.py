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
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=True if device.type in ("cpu", "cuda") else None,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of the next step, for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def momentum_state(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, torch.Tensor]:
    """Momentum buffers by parameter name; those of parameters that have not been stepped are absent."""
    buffers = {}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            buffers[name] = buffer
    return buffers


def load_momentum_state(model: nn.Module, optimizer: torch.optim.SGD, buffers: dict[str, torch.Tensor]) -> None:
    """Put momentum buffers back, in the memory layout of their parameters."""
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        if name in buffers:
            restored = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = restored.detach()
