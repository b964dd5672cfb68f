"""The optimizer and its parameter groups."""

from __future__ import annotations

import torch
from torch import nn

from trainer.config import OptimConfig
from trainer.freezing import BACKBONE, stage_of


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.SGD:
    """SGD over all parameters, those included that are frozen for now; the rate is set before every step.

    Args:
        model: On its device.
        config: Momentum, Nesterov, weight decay and the factor of the rate between stages.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        # Batch-norm weights and all biases are the vectors among the parameters.
        decay = config.weight_decay if config.decay_bn_bias or parameter.ndim > 1 else 0.0
        scale = config.layer_decay ** (BACKBONE - stage_of(name))
        groups.setdefault((scale, decay), []).append(parameter)
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        [
            {"params": parameters, "weight_decay": decay, "lr_scale": scale}
            for (scale, decay), parameters in groups.items()
        ],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=True if device.type in ("cpu", "cuda") else None,
    )
    load_momentum_state(model, optimizer, {})
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of the next step: the classifier's; stages before it have their share."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def momentum_state(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, torch.Tensor]:
    """Momentum buffers by parameter name; parameters that are frozen have none worth keeping."""
    buffers = {}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None and parameter.requires_grad:
            buffers[name] = buffer
    return buffers


def load_momentum_state(model: nn.Module, optimizer: torch.optim.SGD, buffers: dict[str, torch.Tensor]) -> None:
    """Put momentum buffers back, in the memory layout of their parameters; those that are missing begin at zero.

    A momentum of zero gives the same first step, to the bit, as none, and is defined when that step is left out.
    """
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        if optimizer.defaults["momentum"]:
            buffer = torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
            if name in buffers:
                buffer.copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
