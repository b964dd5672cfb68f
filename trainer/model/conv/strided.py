"""A strided 3x3 convolution whose weight gradient is computed by matrix products."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


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
        images_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            images_grad, _, _ = torch.ops.aten.convolution_backward(
                grads_NKHW, images_NCHW, weight_KC33, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            weight_grad = weight_gradient(images_NCHW, grads_NKHW, stride=stride)
        return images_grad, weight_grad, None


def weight_gradient(images_NCHW: Tensor, grads_NKHW: Tensor, *, stride: int) -> Tensor:
    """Gradient (K, C, 3, 3), channels_last, of a kernel with padding 1, from its input and the gradient of its result.

    One matrix product for each of the kernel's nine positions, over the pixels below that position. Products with
    padding are skipped, which on the smallest maps are most of them.
    """
    images_NHWC, grads_NHWK = images_NCHW.permute(0, 2, 3, 1), grads_NKHW.permute(0, 2, 3, 1)
    (height, width, channels), (rows, columns, outputs) = images_NHWC.shape[1:], grads_NHWK.shape[1:]
    # Zeros at positions that never lie over the map.
    result_KYXC = images_NCHW.new_zeros(outputs, 3, 3, channels)
    grads_of: dict[tuple[int, int, int, int], Tensor] = {}
    for y in range(3):
        to_y, from_y = _pairs(height, rows, stride, y)
        for x in range(3):
            to_x, from_x = _pairs(width, columns, stride, x)
            place = to_y.start, to_y.stop, to_x.start, to_x.stop
            if place not in grads_of:
                grads_of[place] = grads_NHWK[:, to_y, to_x].reshape(-1, outputs).t()
            seen_MC = images_NHWC[:, from_y, from_x].reshape(-1, channels)
            torch.mm(grads_of[place], seen_MC, out=result_KYXC[:, y, x])
    return result_KYXC.permute(0, 3, 1, 2)


def _pairs(size: int, results: int, stride: int, tap: int) -> tuple[slice, slice]:
    """Results of one axis for which the kernel's position `tap` lies over the map, and the pixels below it."""
    first = 1 if tap == 0 else 0
    last = max(min(results - 1, (size - tap) // stride), first - 1)
    return slice(first, last + 1), slice(first * stride + tap - 1, max(last * stride + tap, 0), stride)
