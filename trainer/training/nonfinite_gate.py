"""Keeps a step whose loss or gradient is not finite from changing anything, without asking the device for a single value.

Neither weights nor momentum are touched: the fused optimizer looks at a flag on the device. Batch norm has moved its statistics
in the forward pass already, so they are taken back. Nothing is ever replaced by another number: such a step is left out whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UpdateGate:
    """Around one optimizer step: `begin`, then forward and backward passes, then `step`."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Watch over a model, whose batch-norm statistics become parts of one tensor.

        Args:
            model: On its device and in its memory format.
            optimizer: With a momentum for every parameter (`optimizer`): a first step that is left out would leave it
                undefined.
        """
        self._optimizer = optimizer
        self._fused = all(group["fused"] for group in optimizer.param_groups)
        self._statistics = join_statistics(model)
        self._before = torch.empty_like(self._statistics)

    def begin(self) -> None:
        """Remember what a forward pass changes."""
        self._before.copy_(self._statistics)

    def undo(self) -> None:
        """Take back what forward passes have changed since `begin`."""
        self._statistics.copy_(self._before)

    @property
    def statistics(self) -> Tensor:
        """Running mean and variance of all batch norms, as the last forward passes left them: float32, to be changed in place."""
        return self._statistics

    def step(self, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """Update the weights, if these two and the new statistics are finite.

        Args:
            loss: Of the step, a number on the device.
            gradient_norm: Of all gradients, likewise; finite exactly when each of them is.

        Returns:
            float32 (), 1 where the update was left out, else 0.
        """
        skipped = (~torch.isfinite(loss + gradient_norm + self._statistics.sum())).float()
        torch.where(skipped.bool(), self._before, self._statistics, out=self._statistics)
        if self._fused:
            # The way that torch's own gradient scaler takes (torch.amp.GradScaler, `_step_supports_amp_scaling`).
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not bool(skipped):  # no fused optimizer: only here is the value waited for
            self._optimizer.step()
        return skipped


def join_statistics(model: nn.Module) -> Tensor:
    """Put the running mean and variance of all batch norms into one tensor, of which they become parts.

    Args:
        model: Changed in place; its state dict has the same names and values as before.

    Returns:
        float32 (sum of all sizes), on the model's device.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    buffers = [(norm, name) for norm in norms for name in ("running_mean", "running_var")]
    joined = torch.cat([getattr(norm, name) for norm, name in buffers])
    sizes = [getattr(norm, name).numel() for norm, name in buffers]
    for (norm, name), part in zip(buffers, joined.split(sizes), strict=True):
        setattr(norm, name, part)
    return joined
