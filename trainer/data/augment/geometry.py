"""Source position of each pixel of a training image: random crops, flips and TrivialAugment's movements, in one sampling.

Coordinates are those of `torch.nn.functional.grid_sample` with `align_corners=False`: -1 and 1 are the outer edges of the stored
picture. A view is an affine map from the image to the picture; views are composed by multiplying their matrices.
Shapes: N images, H height, W width.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config.data_config import DataConfig
from trainer.data.draws import EpochDraws, Stream

_ASPECTS = (3 / 4, 4 / 3)
"""Aspect ratios of random crops, width over height. Source: Szegedy et al., arXiv:1409.4842, section 6; torchvision."""


def needs_sampling(config: DataConfig) -> bool:
    """Whether pixels are interpolated between stored ones; otherwise whole pixels are moved."""
    return config.resized_crop is not None or config.trivial_augment


def crop_views(config: DataConfig, positions_N: Tensor, draws: EpochDraws) -> Tensor:
    """View of the random crop of each image, or of the whole picture: float32 (N, 2, 3)."""
    if config.resized_crop is not None:
        return _resized_crops(config.resized_crop, positions_N, draws)
    views = identity_views(positions_N)
    if config.crop_pad:
        for axis, stream in ((0, Stream.CROP_X), (1, Stream.CROP_Y)):
            pixels_N = draws.below(2 * config.crop_pad + 1, positions_N, stream)
            views[:, axis, 2] = (pixels_N - config.crop_pad) * (2 / config.image_size)
    return views


def identity_views(positions_N: Tensor) -> Tensor:
    """Identity view of the picture for each position: float32 (N, 2, 3)."""
    return torch.eye(2, 3, device=positions_N.device).repeat(len(positions_N), 1, 1)


def mirrored(views_N23: Tensor, flip_N: Tensor) -> Tensor:
    """Mirror the views where `flip_N` is true."""
    signs_N = torch.where(flip_N, -1.0, 1.0)
    # The flip acts on image coordinates first; the view then maps them to the picture.
    columns_3 = torch.stack((signs_N, torch.ones_like(signs_N), torch.ones_like(signs_N)), dim=1)
    return views_N23 * columns_3[:, None, :]


def composed(outer_N23: Tensor, inner_N23: Tensor) -> Tensor:
    """Compose views: a point of the image is mapped by `inner`, then by `outer`."""
    linear_N22 = outer_N23[:, :, :2] @ inner_N23[:, :, :2]
    shift_N21 = outer_N23[:, :, :2] @ inner_N23[:, :, 2:] + outer_N23[:, :, 2:]
    return torch.cat((linear_N22, shift_N21), dim=2)


def inside_boxes(size: tuple[int, int], tops_N: Tensor, ends_N: Tensor, lefts_N: Tensor, rights_N: Tensor) -> Tensor:
    """Mask (N, H, W) of rectangles that may extend beyond the edges."""
    rows_H, columns_W = (torch.arange(length, device=tops_N.device) for length in size)
    inside_NH = (rows_H >= tops_N[:, None]) & (rows_H < ends_N[:, None])
    inside_NW = (columns_W >= lefts_N[:, None]) & (columns_W < rights_N[:, None])
    return inside_NH[:, :, None] & inside_NW[:, None, :]


def sample(pictures_NHWC: Tensor, views_N23: Tensor, *, side: int, pad: str) -> Tensor:
    """Sample uint8 pictures bilinearly through float32 views: float32 (N, side, side, C), 0 to 255.

    Outside a picture, `pad` selects its mirror image (`reflect`) or black (`zero`).
    """
    pictures_NCHW = pictures_NHWC.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(views_N23, [len(views_N23), 1, side, side], align_corners=False)
    padding = "reflection" if pad == "reflect" else "zeros"
    seen = functional.grid_sample(pictures_NCHW, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return seen.permute(0, 2, 3, 1)


def _resized_crops(smallest: float, positions_N: Tensor, draws: EpochDraws) -> Tensor:
    """Views of boxes of random area and aspect ratio. A side longer than the picture is clamped, not drawn again."""
    uniform = partial(draws.uniform, positions_N)
    area_N = smallest + (1.0 - smallest) * uniform(Stream.CROP_AREA)
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    aspect_N = torch.exp(low + (high - low) * uniform(Stream.CROP_ASPECT))
    widths_N = torch.sqrt(area_N * aspect_N).clamp(max=1.0)
    heights_N = torch.sqrt(area_N / aspect_N).clamp(max=1.0)
    views = torch.zeros(len(positions_N), 2, 3, device=positions_N.device)
    for axis, share_N, stream in ((0, widths_N, Stream.CROP_X), (1, heights_N, Stream.CROP_Y)):
        views[:, axis, axis] = share_N
        views[:, axis, 2] = (1.0 - share_N) * (2.0 * uniform(stream) - 1.0)
    return views
