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

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.training.sgd import SGD, along_memory

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
        for part in _parts(parameters):
            self._turn(_Matrices(part), group)

    def _turn(self, kernels: _Matrices, group: dict[str, Any]) -> None:
        gradient = kernels.joined([kernel.grad for kernel in kernels.parameters if kernel.grad is not None])
        buffers = [self.state[kernel]["momentum_buffer"] for kernel in kernels.parameters]
        before, buffered = kernels.joined(kernels.parameters), kernels.joined(buffers)
        moved = torch.add(gradient, buffered, alpha=group["momentum"])
        step = torch.add(gradient, moved, alpha=group["momentum"]) if group["nesterov"] else moved
        turned = self._turned(kernels, before, step, group["lr"])
        if self.found_inf is not None and group["fused"]:
            skipped = self.found_inf.bool()
            moved, turned = torch.where(skipped, buffered, moved), torch.where(skipped, before, turned)
        kernels.write(buffers, moved)
        kernels.write(kernels.parameters, turned)

    def _turned(self, kernels: _Matrices, before: Tensor, step: Tensor, lr: float | Tensor) -> Tensor:
        """The kernels, turned towards the orthogonal matrices near their steps, at their lengths: joined, as the others."""
        short = kernels.scaled(step, 1.0 / kernels.lengths(step).clamp(min=_SMALLEST)).to(self._dtype)
        updates = [orthogonalized(matrices_BRC).reshape(-1) for _, matrices_BRC in kernels.batches(short)]
        update, lengths_B = _cat(updates).float(), kernels.lengths(before)
        turned = before - kernels.scaled(update, lengths_B * lr / kernels.lengths(update).clamp(min=_SMALLEST))
        return kernels.scaled(turned, lengths_B / kernels.lengths(turned).clamp(min=_SMALLEST))


def _parts(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Kernels that are turned together: all on a GPU, where launches would take longer; one by one on a CPU, in its caches."""
    return [parameters] if parameters[0].is_cuda else [[parameter] for parameter in parameters]


class _Matrices:
    """Kernels as matrices with a row for each output, joined in one vector, in which those of one shape are neighbours."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = sorted(parameters, key=_matrix_shape)
        self._shapes = [_matrix_shape(kernel) for kernel in self.parameters]
        self._sizes = [kernel.numel() for kernel in self.parameters]

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """Join tensors of the kernels' shapes: float32 (sum of their sizes,), not to be changed."""
        pairs = zip(self.parameters, tensors, strict=True)
        return _cat([along_memory(kernel, tensor).reshape(-1) for kernel, tensor in pairs])

    def write(self, tensors: Sequence[Tensor], joined: Tensor) -> None:
        """Copy the parts of a joined vector to tensors of the kernels' shapes."""
        views = [along_memory(kernel, tensor) for kernel, tensor in zip(self.parameters, tensors, strict=True)]
        parts = joined.split(self._sizes)
        torch._foreach_copy_(views, [part.view(view.shape) for part, view in zip(parts, views, strict=True)])

    def lengths(self, joined: Tensor) -> Tensor:
        """Length of each matrix of a joined vector: (B,)."""
        return torch.stack(torch._foreach_norm(joined.split(self._sizes)))

    def scaled(self, joined: Tensor, factors_B: Tensor) -> Tensor:
        """Each matrix of a joined vector times its factor: joined."""
        result = torch.empty_like(joined)
        for (place, matrices_BRC), (_, scaled_BRC) in zip(self.batches(joined), self.batches(result), strict=True):
            torch.mul(matrices_BRC, factors_B[place, None, None], out=scaled_BRC)
        return result

    def batches(self, joined: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The places and the matrices (B, R, C) of each shape in a joined vector."""
        first = start = 0
        for (rows, columns), count in Counter(self._shapes).items():
            end = start + count * rows * columns
            yield slice(first, first + count), joined[start:end].view(count, rows, columns)
            first, start = first + count, end


def _cat(vectors: list[Tensor]) -> Tensor:
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)


def _matrix_shape(kernel: Tensor) -> tuple[int, int]:
    return len(kernel), kernel[0].numel()


def orthogonalized(matrices_BRC: Tensor) -> Tensor:
    """Approximate the nearest matrices of orthonormal rows (or columns, if those are fewer): singular values come near 1.

    Those of the arguments must be at most 1. The Newton-Schulz iteration runs in their precision: bf16 is enough.
    """
    _, rows, columns = matrices_BRC.shape
    x = matrices_BRC if rows <= columns else matrices_BRC.mT
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if rows <= columns else x.mT
