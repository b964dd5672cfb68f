"""A 3x3 convolution for maps so small that most of the kernel lies over the padding.

For a 2x2 map, 20 of the 36 products with a kernel are with zeros; where a 4x4 map becomes 2x2, 11 of 36. Here all outputs that
see the same part of the map are one matrix product with that part, so that nothing is multiplied by padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.model.conv.strided import weight_gradient


@dataclass(frozen=True)
class _Window:
    """Inputs `seen` along one axis, the `outputs` that see exactly these, and the `taps` of each output that lie over them."""

    seen: slice
    outputs: slice
    taps: tuple[slice, ...]


def convolve_small_map(images_NCHW: Tensor, weight_KC33: Tensor, *, stride: int) -> Tensor:
    """Convolve with padding 1 and stride 1 or 2, to (N, K, ceil(H / stride), ceil(W / stride)) in channels_last.

    Both tensors have the same precision. Worth it where a side is not much longer than the kernel.
    """
    return cast(Tensor, _SmallMap.apply(images_NCHW, weight_KC33, stride))


class _SmallMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, weight_KC33: Tensor, stride: int) -> Tensor:
        images_NHWC, kernel_KYXC = images_NCHW.permute(0, 2, 3, 1), weight_KC33.permute(0, 2, 3, 1)
        height, width = images_NCHW.shape[2:]
        result_NHWK = images_NCHW.new_empty(
            len(images_NCHW), -(-height // stride), -(-width // stride), len(weight_KC33)
        )
        matrices = []
        for rows, columns in _parts(height, width, stride):
            seen_NI = images_NHWC[:, rows.seen, columns.seen].flatten(1)
            matrix_OI = _matrix(kernel_KYXC, rows, columns)
            outputs = result_NHWK[:, rows.outputs, columns.outputs]
            outputs.copy_((seen_NI @ matrix_OI.t()).view(outputs.shape))
            matrices.append(matrix_OI)
        ctx.save_for_backward(images_NCHW, *matrices)
        ctx.stride = stride
        return result_NHWK.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images_NCHW, *matrices = ctx.saved_tensors
        images_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            images_grad = _images_gradient(images_NCHW, grads_NKHW, matrices, ctx.stride)
        if ctx.needs_input_grad[1]:
            weight_grad = weight_gradient(images_NCHW, grads_NKHW, stride=ctx.stride)
        return images_grad, weight_grad, None


def _images_gradient(images_NCHW: Tensor, grads_NKHW: Tensor, matrices: list[Tensor], stride: int) -> Tensor:
    batch, channels, height, width = images_NCHW.shape
    grads_NHWK = grads_NKHW.permute(0, 2, 3, 1)
    result_NHWC = grads_NKHW.new_zeros(batch, height, width, channels)
    for (rows, columns), matrix_OI in zip(_parts(height, width, stride), matrices, strict=True):
        part_NHWC = result_NHWC[:, rows.seen, columns.seen]
        part_NHWC += (grads_NHWK[:, rows.outputs, columns.outputs].flatten(1) @ matrix_OI).view(part_NHWC.shape)
    return result_NHWC.permute(0, 3, 1, 2)


def _windows(size: int, stride: int) -> list[_Window]:
    found: list[_Window] = []
    for output in range(-(-size // stride)):
        first = output * stride - 1
        seen = slice(max(first, 0), min(first + 3, size))
        taps = slice(seen.start - first, seen.stop - first)
        if found and found[-1].seen == seen:
            before = found.pop()
            found.append(_Window(seen, slice(before.outputs.start, output + 1), (*before.taps, taps)))
        else:
            found.append(_Window(seen, slice(output, output + 1), (taps,)))
    return found


def _parts(height: int, width: int, stride: int) -> Iterator[tuple[_Window, _Window]]:
    return itertools.product(_windows(height, stride), _windows(width, stride))


def _matrix(kernel_KYXC: Tensor, rows: _Window, columns: _Window) -> Tensor:
    """Matrix from the inputs of a part to its outputs: (rows, columns, K) by (rows, columns, C)."""
    outputs, channels = kernel_KYXC.shape[0], kernel_KYXC.shape[3]
    seen = rows.seen.stop - rows.seen.start, columns.seen.stop - columns.seen.start
    matrix = kernel_KYXC.new_empty(len(rows.taps), len(columns.taps), outputs, *seen, channels)
    for (y, row_taps), (x, column_taps) in itertools.product(enumerate(rows.taps), enumerate(columns.taps)):
        matrix[y, x] = kernel_KYXC[:, row_taps, column_taps]
    return matrix.flatten(3).flatten(0, 2)
