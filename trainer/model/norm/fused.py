"""Batch norm, addition and ReLU as one function with a gradient, of channels_last features on a GPU with Triton.

PyTorch's own kernels for bf16 read and write the features more often: by arithmetic, in training at 32 pixels that is most of a
step's memory traffic.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.errors import first_line

_TILE_CHANNELS = 64


@functools.cache
def why_not_fused(device: torch.device) -> str:
    """Reason why the kernels cannot run on a device, which is tried out; empty where they can, as on NVIDIA's GPUs."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "it needs an NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        return "it needs Triton, which comes with torch for CUDA"
    try:
        features_NCHW = torch.ones(2, 4, 1, 1, device=device, requires_grad=True)
        fused_norm(features_NCHW, nn.BatchNorm2d(4, device=device)).sum().backward()
    except Exception as error:  # noqa: BLE001 - Triton compiles with the machine's own compiler, which fails in many ways
        return f"Triton failed: {first_line(error)}"
    return ""


def fused_norm(features_NCHW: Tensor, norm: nn.BatchNorm2d, *, add: Tensor | None = None, relu: bool = True) -> Tensor:
    """Normalise in training mode, add features, and apply a ReLU: same shape and precision, channels_last.

    Moves the norm's running statistics as its own forward pass does.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    result = _FusedNorm.apply(
        features_NCHW, norm.weight, norm.bias, add, norm.running_mean, norm.running_var, norm.momentum, norm.eps, relu
    )
    return cast(Tensor, result)


class _FusedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor, other_NCHW: Tensor | None, running_mean_C: Tensor,
        running_var_C: Tensor, momentum: float, eps: float, relu: bool,
    ) -> Tensor:  # fmt: skip
        from trainer.model.norm import kernels  # Triton is only where PyTorch is built for a GPU

        x, other = _rows(x_NCHW), None if other_NCHW is None else _rows(other_NCHW)
        tiles, parts, size = _grids(x)
        R, C = x.shape
        part_means, part_squares = x.new_empty((2, parts[0], C), dtype=torch.float32)
        mean, scale = x.new_empty((2, C), dtype=torch.float32)
        kernels.moments[parts](x, part_means, part_squares, R, C, **size, TILES=kernels.TILES)
        kernels.combine_moments[parts[1:]](
            part_means, part_squares, mean, scale, running_mean_C, running_var_C, R, C, parts[0], momentum, eps,
            PART_ROWS=kernels.TILES * kernels.TILE_ROWS, PARTS=kernels.MOST_PARTS, CHANNELS=size["CHANNELS"],
        )  # fmt: skip
        y = torch.empty_like(x)
        kernels.normalize[tiles](
            x,
            x if other is None else other,
            y,
            mean,
            scale,
            weight_C,
            bias_C,
            R,
            C,
            ADDS=other is not None,
            RELU=relu,
            **size,
        )
        ctx.save_for_backward(x, y, weight_C, mean, scale)
        ctx.relu, ctx.shape, ctx.other = relu, x_NCHW.shape, None if other is None else other.dtype
        return _images(y, x_NCHW.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NCHW: Tensor) -> tuple[Tensor | None, ...]:
        from trainer.model.norm import kernels

        x, y, weight_C, mean, scale = ctx.saved_tensors
        dy = _rows(dy_NCHW)
        tiles, parts, size = _grids(x)
        R, C = x.shape
        part_sums, part_products = x.new_empty((2, parts[0], C), dtype=torch.float32)
        sums, products = x.new_empty((2, C), dtype=torch.float32)
        kernels.sum_gradients[parts](
            x, y, dy, part_sums, part_products, mean, scale, R, C, RELU=ctx.relu, **size, TILES=kernels.TILES
        )
        kernels.combine_sums[parts[1:]](
            part_sums, part_products, sums, products, C, parts[0], PARTS=kernels.MOST_PARTS, CHANNELS=size["CHANNELS"]
        )
        dx = torch.empty_like(x)
        dother = None if ctx.other is None else torch.empty_like(x, dtype=ctx.other)
        kernels.input_gradients[tiles](
            x, y, dy, dx, dx if dother is None else dother, mean, scale, weight_C, sums, products, R, C,
            ADDS=dother is not None, RELU=ctx.relu, **size,
        )  # fmt: skip
        dother_NCHW = None if dother is None else _images(dother, ctx.shape)
        return _images(dx, ctx.shape), products, sums, dother_NCHW, None, None, None, None, None


def _rows(images_NCHW: Tensor) -> Tensor:
    """Features as a matrix with a row for each pixel; a view of channels_last features."""
    return images_NCHW.permute(0, 2, 3, 1).reshape(-1, images_NCHW.shape[1]).contiguous()


def _images(rows_RC: Tensor, shape: torch.Size) -> Tensor:
    count, channels, height, width = shape
    return rows_RC.view(count, height, width, channels).permute(0, 3, 1, 2)


def _grids(x_RC: Tensor) -> tuple[tuple[int, int], tuple[int, int], dict[str, int]]:
    """Numbers of programs for tiles and for parts of rows, by blocks of channels, and the size of a tile."""
    from trainer.model.norm import kernels

    rows, channels = x_RC.shape
    blocks = -(-channels // _TILE_CHANNELS)
    tiles = -(-rows // kernels.TILE_ROWS)
    return (
        (tiles, blocks),
        (-(-tiles // kernels.TILES), blocks),
        {"ROWS": kernels.TILE_ROWS, "CHANNELS": _TILE_CHANNELS},
    )
