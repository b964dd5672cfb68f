"""Triton kernels of batch norm, addition and ReLU, forward and backward. Imported only where Triton is.

Features are contiguous matrices of R rows (images and pixels) and C channels: the memory of a channels_last tensor. They are
read in their own precision; everything is computed in fp32. Statistics are summed in three steps that do not depend on the order
in which programs run: within a tile, from tile to tile of a program, and over the programs' parts.

Source of the combination of means and squared deviations: Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for
computing sample variances (1979).
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE_ROWS = 64
TILES = 16  # of a program that sums
MOST_PARTS = 64  # parts that are read at once when they are combined


@triton.jit
def moments(
    x_RC, part_means_PC, part_squares_PC, R, C, ROWS: tl.constexpr, CHANNELS: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """Mean and sum of squared deviations of each channel over the rows of a part."""
    part, channels = tl.program_id(0), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mean = tl.zeros((CHANNELS,), tl.float32)
    squares = tl.zeros((CHANNELS,), tl.float32)
    seen = 0.0
    for tile in range(TILES):
        rows = (part * TILES + tile) * ROWS + tl.arange(0, ROWS)
        inside = (rows < R)[:, None] & (channels < C)[None, :]
        number = tl.sum((rows < R).to(tl.float32))
        if number > 0:
            x = tl.load(x_RC + rows.to(tl.int64)[:, None] * C + channels[None, :], mask=inside, other=0.0).to(
                tl.float32
            )
            tile_mean = tl.sum(x, 0) / number
            deviation = tl.where(inside, x - tile_mean[None, :], 0.0)
            both = seen + number
            shift = tile_mean - mean
            squares += tl.sum(deviation * deviation, 0) + shift * shift * (seen * number / both)
            mean += shift * (number / both)
            seen = both
    place = part * C + channels
    tl.store(part_means_PC + place, mean, mask=channels < C)
    tl.store(part_squares_PC + place, squares, mask=channels < C)


@triton.jit
def combine_moments(
    part_means_PC, part_squares_PC, mean_C, scale_C, running_mean_C, running_var_C,
    R, C, P, momentum, eps, PART_ROWS: tl.constexpr, PARTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / standard deviation over all rows; moves the running mean and (unbiased) variance."""
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mean = tl.zeros((CHANNELS,), tl.float32)
    for first in range(0, P, PARTS):
        parts = first + tl.arange(0, PARTS)
        inside = (parts < P)[:, None] & (channels < C)[None, :]
        share = tl.minimum(R - parts * PART_ROWS, PART_ROWS).to(tl.float32) / R
        means = tl.load(part_means_PC + parts[:, None] * C + channels[None, :], mask=inside, other=0.0)
        mean += tl.sum(tl.where(inside, means * share[:, None], 0.0), 0)
    squares = tl.zeros((CHANNELS,), tl.float32)
    for first in range(0, P, PARTS):
        parts = first + tl.arange(0, PARTS)
        inside = (parts < P)[:, None] & (channels < C)[None, :]
        number = tl.minimum(R - parts * PART_ROWS, PART_ROWS).to(tl.float32)
        place = parts[:, None] * C + channels[None, :]
        shift = tl.load(part_means_PC + place, mask=inside, other=0.0) - mean[None, :]
        within = tl.load(part_squares_PC + place, mask=inside, other=0.0)
        squares += tl.sum(tl.where(inside, within + shift * shift * number[:, None], 0.0), 0)
    known = channels < C
    tl.store(mean_C + channels, mean, mask=known)
    tl.store(scale_C + channels, 1.0 / tl.sqrt_rn(squares / R + eps), mask=known)
    before = tl.load(running_mean_C + channels, mask=known, other=0.0)
    tl.store(running_mean_C + channels, before + momentum * (mean - before), mask=known)
    before = tl.load(running_var_C + channels, mask=known, other=0.0)
    tl.store(running_var_C + channels, before + momentum * (squares / (R - 1) - before), mask=known)


@triton.jit
def normalize(
    x_RC, other_RC, y_RC, mean_C, scale_C, weight_C, bias_C, R, C,
    ADDS: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Normalise, add the other features, and apply the ReLU."""
    rows, channels = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    factor = tl.load(scale_C + channels, mask=known, other=0.0) * tl.load(weight_C + channels, mask=known, other=0.0)
    mean, bias = tl.load(mean_C + channels, mask=known, other=0.0), tl.load(bias_C + channels, mask=known, other=0.0)
    place, inside = rows.to(tl.int64)[:, None] * C + channels[None, :], (rows < R)[:, None] & known[None, :]
    x = tl.load(x_RC + place, mask=inside, other=0.0).to(tl.float32)
    y = (x - mean[None, :]) * factor[None, :] + bias[None, :]
    if ADDS:
        y += tl.load(other_RC + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        y = tl.where(y < 0.0, 0.0, y)  # keeps NaN, as PyTorch does
    tl.store(y_RC + place, y.to(y_RC.dtype.element_ty), mask=inside)


@triton.jit
def sum_gradients(
    x_RC, y_RC, dy_RC, part_sums_PC, part_products_PC, mean_C, scale_C, R, C,
    RELU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Sums over the rows of a part: of the gradient behind the ReLU, and of its product with the normalised features."""
    part, channels = tl.program_id(0), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    mean, scale = tl.load(mean_C + channels, mask=known, other=0.0), tl.load(scale_C + channels, mask=known, other=0.0)
    sums = tl.zeros((CHANNELS,), tl.float32)
    products = tl.zeros((CHANNELS,), tl.float32)
    for tile in range(TILES):
        rows = (part * TILES + tile) * ROWS + tl.arange(0, ROWS)
        place, inside = rows.to(tl.int64)[:, None] * C + channels[None, :], (rows < R)[:, None] & known[None, :]
        gradient = tl.load(dy_RC + place, mask=inside, other=0.0).to(tl.float32)
        if RELU:
            gradient = tl.where(tl.load(y_RC + place, mask=inside, other=0.0).to(tl.float32) > 0.0, gradient, 0.0)
        x = tl.load(x_RC + place, mask=inside, other=0.0).to(tl.float32)
        sums += tl.sum(gradient, 0)
        products += tl.sum(gradient * (x - mean[None, :]) * scale[None, :], 0)
    place = part * C + channels
    tl.store(part_sums_PC + place, sums, mask=known)
    tl.store(part_products_PC + place, products, mask=known)


@triton.jit
def combine_sums(
    part_sums_PC, part_products_PC, sums_C, products_C, C, P, PARTS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Sums over all parts: the gradients of bias and weight."""
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    sums = tl.zeros((CHANNELS,), tl.float32)
    products = tl.zeros((CHANNELS,), tl.float32)
    for first in range(0, P, PARTS):
        parts = first + tl.arange(0, PARTS)
        place, inside = parts[:, None] * C + channels[None, :], (parts < P)[:, None] & (channels < C)[None, :]
        sums += tl.sum(tl.load(part_sums_PC + place, mask=inside, other=0.0), 0)
        products += tl.sum(tl.load(part_products_PC + place, mask=inside, other=0.0), 0)
    tl.store(sums_C + channels, sums, mask=channels < C)
    tl.store(products_C + channels, products, mask=channels < C)


@triton.jit
def input_gradients(
    x_RC, y_RC, dy_RC, dx_RC, dother_RC, mean_C, scale_C, weight_C, sums_C,
    products_C, R, C, ADDS: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of both inputs: the added features get the gradient behind the ReLU."""
    rows, channels = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    mean, scale = tl.load(mean_C + channels, mask=known, other=0.0), tl.load(scale_C + channels, mask=known, other=0.0)
    weight = tl.load(weight_C + channels, mask=known, other=0.0)
    mean_gradient = tl.load(sums_C + channels, mask=known, other=0.0) / R
    mean_product = tl.load(products_C + channels, mask=known, other=0.0) / R
    place, inside = rows.to(tl.int64)[:, None] * C + channels[None, :], (rows < R)[:, None] & known[None, :]
    gradient = tl.load(dy_RC + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        gradient = tl.where(tl.load(y_RC + place, mask=inside, other=0.0).to(tl.float32) > 0.0, gradient, 0.0)
    if ADDS:
        tl.store(dother_RC + place, gradient.to(dother_RC.dtype.element_ty), mask=inside)
    normal = (tl.load(x_RC + place, mask=inside, other=0.0).to(tl.float32) - mean[None, :]) * scale[None, :]
    dx = (gradient - mean_gradient[None, :] - normal * mean_product[None, :]) * (weight * scale)[None, :]
    tl.store(dx_RC + place, dx.to(dx_RC.dtype.element_ty), mask=inside)
