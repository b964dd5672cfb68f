"""The gradient of a strided 3x3 kernel: one matrix product for each of its nine positions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def convolve_with_gradient_by_taps(images_NCHW: Tensor, weight_KC33: Tensor, *, stride: int) -> Tensor:
    """The library's convolution with padding 1, and our gradient of the weights.

    Args:
        images_NCHW: Of any size.
        weight_KC33: Of the same precision.
        stride: Of the convolution.
    """
    return cast(Tensor, _GradientByTaps.apply(images_NCHW, weight_KC33, stride))


def weight_gradient(images_NCHW: Tensor, grads_NKHW: Tensor, *, stride: int) -> Tensor:
    """The gradient of a 3x3 kernel with padding 1.

    Args:
        images_NCHW: What was convolved.
        grads_NKHW: Gradient of the result.
        stride: Of the convolution.

    Returns:
        Gradient (K, C, 3, 3) in channels_last.
    """
    channels, (batch, outputs, height, width) = images_NCHW.shape[1], grads_NKHW.shape
    padded_NHWC = functional.pad(images_NCHW, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    grads_KM = grads_NKHW.permute(0, 2, 3, 1).reshape(batch * height * width, outputs).t()
    result_KYXC = images_NCHW.new_empty(outputs, 3, 3, channels)
    for y in range(3):
        for x in range(3):
            seen_NHWC = padded_NHWC[:, y : y + stride * height : stride, x : x + stride * width : stride]
            torch.mm(grads_KM, seen_NHWC.reshape(-1, channels), out=result_KYXC[:, y, x])
    return result_KYXC.permute(0, 3, 1, 2)


class _GradientByTaps(torch.autograd.Function):
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
