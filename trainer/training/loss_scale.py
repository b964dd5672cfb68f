"""Scales the loss of an fp16 run before the backward pass, so that small gradients do not become 0.

A step whose gradients overflow is skipped like any other non-finite step (`nonfinite_gate`), and the scale halved; after many
good ones it is doubled. The rule is that of `torch.amp.GradScaler` within two bounds, and it follows the gate's verdict
instead of checking the gradients itself. Everything stays on the device.

Source: Micikevicius et al., Mixed Precision Training, arXiv:1710.03740.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST = 2.0**12  # larger first scales would have to be halved in most runs
_LEAST, _LARGEST = 1.0, 2.0**16
"""Bounds of the scale: overflow at the lower one has another cause; above the upper one, the way back gets longer."""
_GOOD_STEPS = 2000  # consecutive good steps after which the scale is doubled


class LossScale:
    """The loss scale of a run; in other precisions than fp16 it is off and changes nothing."""

    def __init__(self, device: torch.device, *, precision: str) -> None:
        self.enabled = precision == "fp16"
        # float32 (2,), only changed in place: the scale, and the good steps since it last changed.
        self.state_2 = torch.tensor([_FIRST, 0.0], device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        return loss * self.state_2[0] if self.enabled else loss

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        if self.enabled:
            torch._foreach_mul_(gradients, self.state_2[0].reciprocal())

    def update(self, skipped: Tensor) -> None:
        """Update the scale after a step; `skipped` is float32 (), 1 where the step was skipped."""
        if not self.enabled:
            return
        scale, good = self.state_2[0], self.state_2[1] + 1
        bad, double = skipped.bool(), good >= _GOOD_STEPS
        changed = torch.where(bad, scale / 2, torch.where(double, scale * 2, scale)).clamp(_LEAST, _LARGEST)
        self.state_2.copy_(torch.stack((changed, torch.where(bad | double, torch.zeros_like(good), good))))

    def restore(self, state: list[float]) -> None:
        """Restore the two values of an earlier `state_2`; an empty list changes nothing."""
        if state:
            self.state_2.copy_(torch.tensor(state))
