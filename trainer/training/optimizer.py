"""The optimizer and its parameter groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from trainer.config.freezing import BACKBONE, stage_of
from trainer.config.schema import OptimConfig
from trainer.training.muon import Muon
from trainer.training.sgd import SGD


def build_optimizer(model: nn.Module, config: OptimConfig, *, precision: str) -> SGD:
    """SGD or Muon over all parameters, including frozen ones; the learning rate is set before every step."""
    fused = True if next(model.parameters()).device.type in ("cpu", "cuda") else None
    groups = _groups(model, config)
    optimizer: SGD
    if config.name == "muon":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        optimizer = Muon(groups, lr=config.lr, nesterov=config.nesterov, fused=fused, dtype=dtype)
    else:
        optimizer = SGD(groups, lr=config.lr, nesterov=config.nesterov, fused=fused)
    for group in groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    if next(model.parameters()).is_cuda:
        optimizer.keep_lrs_on_device()
    return optimizer


def _groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Groups of parameters that are trained with the same settings."""
    groups: dict[tuple[bool, float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        turned = config.name == "muon" and parameter.ndim == 4
        # Batch-norm weights and all biases are the vectors among the parameters.
        decay = config.weight_decay if (config.decay_bn_bias or parameter.ndim > 1) and not turned else 0.0
        scale = config.layer_decay ** (BACKBONE - stage_of(name))
        if turned:
            scale *= config.kernel_lr / config.lr
        momentum = config.kernel_momentum if turned else config.momentum
        facts = {"turned": turned, "weight_decay": decay, "lr_scale": scale, "momentum": momentum}
        groups.setdefault((turned, scale, decay), {"params": [], **facts})["params"].append(parameter)
    return list(groups.values())


def momentum_state(model: nn.Module, optimizer: SGD) -> dict[str, torch.Tensor]:
    """Momentum buffers of trained parameters, by name."""
    return {name: buffer for name, parameter, buffer in _momenta(model, optimizer) if parameter.requires_grad}


def forget_momentum_of_frozen(model: nn.Module, optimizer: SGD) -> None:
    """Clear the momentum of frozen parameters, so that they begin without one when unfrozen, as after a resume."""
    for _, parameter, buffer in _momenta(model, optimizer):
        if not parameter.requires_grad:
            buffer.zero_()


def load_momentum_state(model: nn.Module, optimizer: SGD, buffers: dict[str, torch.Tensor]) -> None:
    """Restore momentum buffers in place, in the layout of their parameters; missing ones begin at zero.

    A momentum of zero gives the same first step, to the bit, as none, and stays defined when that step is skipped.
    """
    for name, _, buffer in _momenta(model, optimizer):
        if name in buffers:
            buffer.copy_(buffers[name])
        else:
            buffer.zero_()


def _momenta(model: nn.Module, optimizer: SGD) -> Iterator[tuple[str, nn.Parameter, torch.Tensor]]:
    """Name, parameter and momentum buffer of every parameter that is trained with momentum."""
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            yield name, parameter, state["momentum_buffer"]
