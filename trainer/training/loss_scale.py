"""What the loss of an fp16 run is multiplied by before the backward pass, so that small gradients do not become 0.

A step whose gradients overflow is left out like any other that is not finite (`nonfinite_gate`), and the scale halved; after
many good ones it is doubled. The rule is that of `torch.amp.GradScaler`, but for two bounds, and it follows the gate's verdict
instead of a look of its own. Everything stays on the device.

Source: Micikevicius et al., Mixed Precision Training, arXiv:1710.03740.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_FIRST = 2.0**12
"""Larger ones would have to be halved first in most runs."""
_LEAST, _LARGEST = 1.0, 2.0**16
"""What overflows at the one is not the scale's doing; above the other it only has a longer way back."""
_GOOD_STEPS = 2000
"""In a row after which it is doubled."""


class LossScale:
    """The scale of a run; of runs in other precisions it is off, and changes nothing.

    Attributes:
        enabled: Whether losses are scaled.
        state_2: float32 (2,) on the device, only ever changed in its place: the scale, and the good steps since it last changed.
    """

    def __init__(self, device: torch.device, *, precision: str) -> None:
        """Begin with the first scale.

        Args:
            device: That trains.
            precision: As `Numerics.precision`.
        """
        self.enabled = precision == "fp16"
        self.state_2 = torch.tensor([_FIRST, 0.0], device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradients are to be computed."""
        return loss * self.state_2[0] if self.enabled else loss

    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Make gradients those of the loss itself, in their places."""
        if self.enabled:
            inverse = self.state_2[0].reciprocal()
            for gradient in gradients:
                gradient *= inverse

    def update(self, skipped: Tensor) -> None:
        """Take note of a step.

        Args:
            skipped: float32 (), 1 where it was left out.
        """
        if not self.enabled:
            return
        scale, good = self.state_2[0], self.state_2[1] + 1
        bad, double = skipped.bool(), good >= _GOOD_STEPS
        changed = torch.where(bad, scale / 2, torch.where(double, scale * 2, scale)).clamp(_LEAST, _LARGEST)
        self.state_2.copy_(torch.stack((changed, torch.where(bad | double, torch.zeros_like(good), good))))

    def restore(self, state: list[float]) -> None:
        """Go back to what `state_2` was.

        Args:
            state: Empty where nothing was recorded: the scale stays as it is.
        """
        if state:
            self.state_2.copy_(torch.tensor(state))
