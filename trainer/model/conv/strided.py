"""A strided 3x3 convolution whose weight gradient is computed by matrix products."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainer.model.conv.weight_gradient import weight_gradient


def convolve_strided(images_NCHW: Tensor, weight_KC33: Tensor, *, stride: int) -> Tensor:
    """The library's convolution with padding 1, with our weight gradient; both tensors have the same precision."""
    return cast(Tensor, _Strided.apply(images_NCHW, weight_KC33, stride))


class _Strided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, weight_KC33: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images_NCHW, weight_KC33)
        ctx.stride = stride
        return functional.conv2d(images_NCHW, weight_KC33, stride=stride, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images_NCHW, weight_KC33 = ctx.saved_tensors
        stride = ctx.stride
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images, _, _ = torch.ops.aten.convolution_backward(
                grads_NKHW, images_NCHW, weight_KC33, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(images_NCHW, grads_NKHW, stride=stride)
        return of_images, of_weight, None
