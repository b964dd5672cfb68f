"""Skips steps whose loss or gradient is not finite, without reading a single value back from the device.

Neither weights nor momentum change: the fused optimizer looks at a flag on the device. Batch-norm statistics, which the
forward pass has already moved, are restored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.training.sgd import SGD


class NonFiniteGate:
    """Gate around one optimizer step: `begin`, then forward and backward passes, then `step`.

    The optimizer must hold a momentum for every parameter: otherwise a skipped first step would leave it undefined.
    """

    def __init__(self, model: nn.Module, optimizer: SGD) -> None:
        self._optimizer = optimizer
        self._fused = all(group["fused"] for group in optimizer.param_groups)
        self.statistics = join_statistics(model)  # running means and variances: float32, to be changed in place
        self._before = torch.empty_like(self.statistics)

    def begin(self) -> None:
        """Save what a forward pass changes."""
        self._before.copy_(self.statistics)

    def undo(self) -> None:
        """Restore what forward passes have changed since `begin`."""
        self.statistics.copy_(self._before)

    def step(self, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """Update the weights if the loss, the gradient norm (scalars on the device) and the new statistics are finite.

        The norm is finite exactly when every gradient is. Returns float32 (), 1 where the step was skipped, else 0.
        """
        skipped = (~torch.isfinite(loss + gradient_norm + self.statistics.sum())).float()
        torch.where(skipped.bool(), self._before, self.statistics, out=self.statistics)
        if self._fused:
            # As torch's own gradient scaler passes the flag (torch.amp.GradScaler, `_step_supports_amp_scaling`).
            self._optimizer.found_inf = skipped
            self._optimizer.step()
        elif not bool(skipped):  # no fused optimizer: only here is the value waited for
            self._optimizer.step()
        return skipped


def join_statistics(model: nn.Module) -> Tensor:
    """Join all batch-norm statistics in one float32 tensor, of which they become views; the state dict does not change."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    buffers = [(norm, name) for norm in norms for name in ("running_mean", "running_var")]
    joined = torch.cat([getattr(norm, name) for norm, name in buffers])
    sizes = [getattr(norm, name).numel() for norm, name in buffers]
    for (norm, name), part in zip(buffers, joined.split(sizes), strict=True):
        setattr(norm, name, part)
    return joined
