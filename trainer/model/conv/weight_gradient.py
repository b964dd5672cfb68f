"""The gradient of a 3x3 kernel: one matrix product for each of its nine positions, over the pixels below that position.

Products with padding are skipped, which on the smallest maps are most of them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weight_gradient(images_NCHW: Tensor, grads_NKHW: Tensor, *, stride: int) -> Tensor:
    """Gradient (K, C, 3, 3), channels_last, of a kernel with padding 1, from its input and the gradient of its result."""
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
