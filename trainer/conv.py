"""A 3x3 convolution that is computed by matrix products where that is faster on a CPU.

- On feature maps of 2x2 and smaller, as in ResNet-18's last stage at 32 pixels, most of a kernel lies over the padding: 20 of 36
  products of a 2x2 map are with zeros. One matrix from all inputs of an image to all its outputs leaves them out.
- oneDNN's weight gradient of strided kernels falls far below the processor's speed. One matrix product for each of the nine
  positions of the kernel does the same sum.

`benchmarks/training_speed.py` measures the gain; `run.convolution: auto` times both ways before training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_SMALL = 2
"""Side of the largest map on which the matrix takes fewer multiplications than the kernel does."""


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` with a 3x3 kernel, padding 1 and no bias; the same parameters under the same names.

    Attributes:
        by_products: Whether matrix products are taken in training, where they are expected to be faster.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.by_products = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """Images (N, in_channels, H, W) to features (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        strided = self.stride[0] > 1
        if not (self.by_products and self.training and (strided or max(input.shape[2:]) <= _SMALL)):
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled(input.device.type):
            # Cast out here, so that what is saved for the gradient is in this precision, and gradients come back in fp32.
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), weight.to(dtype)  # noqa: A001 - as above
        if strided:
            return cast(Tensor, _ProductGradient.apply(input, weight, self.stride[0]))
        return cast(Tensor, _OneMatrix.apply(input, weight))


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


class _ProductGradient(torch.autograd.Function):
    """The convolution with the gradient above."""

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, weight_KC33: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images_NCHW, weight_KC33)
        ctx.stride = stride
        return functional.conv2d(images_NCHW, weight_KC33, stride=stride, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images_NCHW, weight_KC33 = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images, _, _ = torch.ops.aten.convolution_backward(
                grads_NKHW, images_NCHW, weight_KC33, None, [ctx.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(images_NCHW, grads_NKHW, stride=ctx.stride)
        return of_images, of_weight, None


class _OneMatrix(torch.autograd.Function):
    """The convolution of a small map, stride 1, as a product with a matrix of all pairs of input and output."""

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, weight_KC33: Tensor) -> Tensor:
        size = images_NCHW.shape[2:]
        flat_NI, matrix_OI = _flat(images_NCHW), _matrix(weight_KC33, *size)
        ctx.save_for_backward(flat_NI, matrix_OI)
        ctx.size = size
        return _maps(flat_NI @ matrix_OI.t(), *size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None]:
        flat_NI, matrix_OI = ctx.saved_tensors
        grads_NO = _flat(grads_NKHW)
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _maps(grads_NO @ matrix_OI, *ctx.size)
        if ctx.needs_input_grad[1]:
            of_weight = _kernel(grads_NO.t() @ flat_NI, *ctx.size)
        return of_images, of_weight


def _flat(maps_NCHW: Tensor) -> Tensor:
    """Maps to rows: by height, width, channel. A view where channels come last."""
    return maps_NCHW.permute(0, 2, 3, 1).flatten(1)


def _maps(rows_NI: Tensor, height: int, width: int) -> Tensor:
    return rows_NI.view(len(rows_NI), height, width, -1).permute(0, 3, 1, 2)


def _parts(height: int, width: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Each output, and which rows and columns of the kernel lie over the map there."""
    for y in range(height):
        for x in range(width):
            yield y, x, slice(1 - y, 1 - y + height), slice(1 - x, 1 - x + width)


def _matrix(weight_KC33: Tensor, height: int, width: int) -> Tensor:
    """From all inputs of a map to all its outputs: (H W K, H W C)."""
    outputs, channels = weight_KC33.shape[:2]
    kernel_KYXC = weight_KC33.permute(0, 2, 3, 1)
    matrix = weight_KC33.new_empty(height, width, outputs, height, width, channels)
    for y, x, rows, columns in _parts(height, width):
        matrix[y, x] = kernel_KYXC[:, rows, columns]
    return matrix.view(height * width * outputs, height * width * channels)


def _kernel(grads_OI: Tensor, height: int, width: int) -> Tensor:
    """The gradient of a kernel (K, C, 3, 3), in channels_last, from that of its matrix."""
    grads = grads_OI.view(height, width, len(grads_OI) // (height * width), height, width, -1)
    result_KYXC = grads_OI.new_zeros(grads.shape[2], 3, 3, grads.shape[5])
    for y, x, rows, columns in _parts(height, width):
        result_KYXC[:, rows, columns] += grads[y, x]
    return result_KYXC.permute(0, 3, 1, 2)
