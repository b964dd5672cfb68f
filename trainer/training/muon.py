"""Muon: each step turns every kernel, by an angle that the rate alone decides, towards an orthogonal matrix near its momentum.

The update of a kernel is its momentum with all singular values brought near 1, so that directions which gradients seldom show
are learnt as fast as those that they always show. Every convolution of a ResNet-18 is followed by batch norm, which cancels the
length of a kernel; so kernels are kept at one length, and the rate is how far a step turns them. Everything that is not a kernel
(batch norm, the classifier) is trained by SGD.

Sources: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024), for the update and the coefficients;
K. Jordan, arXiv:2404.00498 and its repository, for kernels of constant length. A new implementation: `torch.optim.Muon` takes
only matrices, and needs a newer PyTorch than this program.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.training.sgd import SGD

_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # for x, x^3, x^5: singular values of 0 to 1 soon lie between 0.7 and 1.2
_ROUNDS = 3
_SMALLEST = 1e-7  # smallest divisor where a kernel is divided by its length


class Muon(SGD):
    """Muon for the groups that are `turned`, SGD for the others, in one step. Weight decay is for SGD alone."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, nesterov: bool, fused: bool | None, dtype: torch.dtype
    ) -> None:
        self._dtype = dtype  # precision of the orthogonalization
        super().__init__(groups, lr=lr, nesterov=nesterov, fused=fused)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        if not group["turned"]:
            super()._update(parameters, group)
            return
        for kernel in parameters:
            self._turn(kernel, group)

    def _turn(self, kernel: nn.Parameter, group: dict[str, Any]) -> None:
        momentum, buffer = group["momentum"], self.state[kernel]["momentum_buffer"]
        assert kernel.grad is not None
        moved = buffer * momentum + kernel.grad
        update = orthogonalized(moved * momentum + kernel.grad if group["nesterov"] else moved, self._dtype)
        length = kernel.norm()
        turned = kernel - update * (length * group["lr"] / update.norm().clamp(min=_SMALLEST))
        turned *= length / turned.norm().clamp(min=_SMALLEST)
        if self.found_inf is not None and group["fused"]:
            skipped = self.found_inf.bool()
            moved, turned = torch.where(skipped, buffer, moved), torch.where(skipped, kernel, turned)
        buffer.copy_(moved)
        kernel.copy_(turned)


def orthogonalized(kernel_KCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Approximate the nearest matrix of orthonormal rows (or columns, if those are fewer): singular values come near 1.

    The kernel is a matrix of K rows. The Newton-Schulz iteration runs in `dtype` (bf16 is enough); returns float32.
    """
    outputs, channels, height, width = kernel_KCHW.shape
    matrix_KI = kernel_KCHW.permute(0, 2, 3, 1).reshape(outputs, -1)
    wide = matrix_KI if outputs <= matrix_KI.shape[1] else matrix_KI.t()
    x: Tensor = (wide / wide.norm().clamp(min=_SMALLEST)).to(dtype)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram = x @ x.t()
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result_KI = x if wide is matrix_KI else x.t()
    return result_KI.float().reshape(outputs, height, width, channels).permute(0, 3, 1, 2)
