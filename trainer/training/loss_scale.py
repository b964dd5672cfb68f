"""Scales the loss of an fp16 run before the backward pass, so that small gradients do not become 0.

A step whose gradients overflow is skipped like any other non-finite step (`nonfinite_gate`), and the scale halved; after many
good ones it is doubled. The rule is that of `torch.amp.GradScaler`, but for two bounds, and it follows the gate's verdict
instead of checking the gradients itself. Everything stays on the device.

Source: Micikevicius et al., Mixed Precision Training, arXiv:1710.03740.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_FIRST = 2.0**12
"""First scale; larger ones would have to be halved first in most runs."""
_LEAST, _LARGEST = 1.0, 2.0**16
"""Bounds of the scale: overflow at the lower one has another cause; beyond the upper one, only the way back gets longer."""
_GOOD_STEPS = 2000
"""Consecutive good steps after which the scale is doubled."""


class LossScale:
    """The loss scale of a run. In other precisions than fp16 it is off, and changes nothing.

    Attributes:
        enabled: Whether losses are scaled.
        state_2: float32 (2,) on the device, only changed in place: the scale, and the good steps since it last changed.
    """

    def __init__(self, device: torch.device, *, precision: str) -> None:
        """Begin with the first scale.

        Args:
            device: Training device.
            precision: Precision as in `Numerics.precision`.
        """
        self.enabled = precision == "fp16"
        self.state_2 = torch.tensor([_FIRST, 0.0], device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to compute gradients of."""
        return loss * self.state_2[0] if self.enabled else loss

    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        if self.enabled:
            inverse = self.state_2[0].reciprocal()
            for gradient in gradients:
                gradient *= inverse

    def update(self, skipped: Tensor) -> None:
        """Update the scale after a step.

        Args:
            skipped: float32 (), 1 where the step was skipped.
        """
        if not self.enabled:
            return
        scale, good = self.state_2[0], self.state_2[1] + 1
        bad, double = skipped.bool(), good >= _GOOD_STEPS
        changed = torch.where(bad, scale / 2, torch.where(double, scale * 2, scale)).clamp(_LEAST, _LARGEST)
        self.state_2.copy_(torch.stack((changed, torch.where(bad | double, torch.zeros_like(good), good))))

    def restore(self, state: list[float]) -> None:
        """Restore an earlier `state_2`.

        Args:
            state: Its two values; empty where none were recorded, and the scale then does not change.
        """
        if state:
            self.state_2.copy_(torch.tensor(state))
