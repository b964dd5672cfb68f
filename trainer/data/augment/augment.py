"""Turns uint8 pixels into normalised, augmented training batches on the device.

A crop from a padded picture and a flip only change which pixel is read, so they are index arithmetic: the batch is gathered
straight from the whole data set, which stays uint8. Crops that are resized and TrivialAugment's movements read between pixels
(`trainer.data.augment.geometry`). Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config.data_config import DataConfig
from trainer.data.augment.geometry import composed, crop_views, inside_boxes, mirrored, needs_sampling, sample
from trainer.data.augment.trivial_augment import Operations
from trainer.data.draws import EpochDraws, Stream, draw

_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 3.3)
"""Share of the image, and height over width, of an erased rectangle. Source: Zhong et al., arXiv:1708.04896, section 4.1."""


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Mean and standard deviation of each channel on the 0-1 scale, on the device of the images."""

    mean_C: Tensor
    std_C: Tensor

    @classmethod
    def of(cls, mean: list[float], std: list[float], device: torch.device) -> Normalize:
        """Create it from plain numbers."""
        return cls(mean_C=torch.tensor(mean, device=device), std_C=torch.tensor(std, device=device))

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Normalise uint8 pixels: float32 of the same shape."""
        scale = 1.0 / (255.0 * self.std_C)
        return pixels_NHWC.float() * scale - self.mean_C / self.std_C


class Augment:
    """Makes training batches; normalises after the crop and before holes are cut, so that they hold the mean."""

    def __init__(self, *, config: DataConfig, normalize: Normalize, seed: int) -> None:
        self.config = config
        self.normalize = normalize
        self.draws = EpochDraws(seed, normalize.mean_C.device)

    def __call__(
        self, pixels_MHWC: Tensor, rows_N: Tensor, sample_ids_N: Tensor, positions_N: Tensor, epoch: int
    ) -> Tensor:
        """Gather, augment and normalise: float32 (N, C, H, W), at the epoch's image size.

        Args:
            pixels_MHWC: uint8, all images or those of this batch.
            rows_N: int64, rows of `pixels_MHWC` that make the batch.
            sample_ids_N: int64, image numbers in the training split (the alternating flip depends on the image).
            positions_N: int64, positions in the epoch's order (all other draws depend on the position).
            epoch: Epoch, counted from 0.
        """
        self.draws.begin(epoch)
        flip_N = self._flips(sample_ids_N, positions_N)
        if needs_sampling(self.config):
            batch_NHWC = self._sampled(pixels_MHWC, rows_N, positions_N, flip_N)
        else:
            batch_NHWC = self._gathered(pixels_MHWC, rows_N, positions_N, flip_N)
        images_NHWC = self.normalize(batch_NHWC)
        _, height, width, _ = images_NHWC.shape
        if self.config.cutout:
            images_NHWC = images_NHWC * self._holes(height, width, positions_N)[..., None]
        if self.config.random_erase:
            images_NHWC = images_NHWC * self._erased(height, width, positions_N)[..., None]
        return _resized(images_NHWC.permute(0, 3, 1, 2), self.config.size_in(epoch))

    def _sampled(self, pixels_MHWC: Tensor, rows_N: Tensor, positions_N: Tensor, flip_N: Tensor) -> Tensor:
        """Crops of any size and movements: float32 (N, image_size, image_size, C), 0 to 255."""
        config = self.config
        views = mirrored(crop_views(config, positions_N, self.draws), flip_N)
        operations = None
        if config.trivial_augment:
            operations = Operations.drawn(positions_N, self.draws)
            views = composed(views, operations.views())
        batch_NHWC = sample(pixels_MHWC.index_select(0, rows_N), views, side=config.image_size, pad=config.pad)
        return batch_NHWC if operations is None else operations.recolored(batch_NHWC)

    def _gathered(self, pixels_MHWC: Tensor, rows_N: Tensor, positions_N: Tensor, flip_N: Tensor) -> Tensor:
        """Whole pixels of the padded picture: uint8 (N, H, W, C)."""
        _, height, width, channels = pixels_MHWC.shape
        ys_NH, xs_NW = self._windows(height, width, positions_N)
        xs_NW = torch.where(flip_N[:, None], xs_NW.flip(1), xs_NW)
        inside_NHW = None
        if self.config.crop_pad and self.config.pad == "zero":
            inside_NHW = _inside(ys_NH, height)[:, :, None] & _inside(xs_NW, width)[:, None, :]
            ys_NH, xs_NW = ys_NH.clamp(0, height - 1), xs_NW.clamp(0, width - 1)
        elif self.config.crop_pad:
            ys_NH, xs_NW = _reflect(ys_NH, height), _reflect(xs_NW, width)
        flat_NHW = (rows_N[:, None, None] * height + ys_NH[:, :, None]) * width + xs_NW[:, None, :]
        picked = pixels_MHWC.reshape(-1, channels).index_select(0, flat_NHW.reshape(-1))
        batch_NHWC = picked.view(*flat_NHW.shape, channels)
        return batch_NHWC if inside_NHW is None else batch_NHWC * inside_NHW[..., None]

    def _windows(self, height: int, width: int, positions_N: Tensor) -> tuple[Tensor, Tensor]:
        rows_H = torch.arange(height, device=positions_N.device)
        columns_W = torch.arange(width, device=positions_N.device)
        pad = self.config.crop_pad
        if not pad:
            return rows_H.expand(len(positions_N), -1), columns_W.expand(len(positions_N), -1)
        tops_N = self.draws.below(2 * pad + 1, positions_N, Stream.CROP_Y) - pad
        lefts_N = self.draws.below(2 * pad + 1, positions_N, Stream.CROP_X) - pad
        return tops_N[:, None] + rows_H, lefts_N[:, None] + columns_W

    def _flips(self, sample_ids_N: Tensor, positions_N: Tensor) -> Tensor:
        """Mask of the images that are mirrored. Alternating flip: K. Jordan, arXiv:2404.00498, section 3.6."""
        if self.config.flip == "none":
            return torch.zeros_like(positions_N, dtype=torch.bool)
        if self.config.flip == "random":
            return self.draws.whole(positions_N, Stream.FLIP) % 2 == 1
        return (draw(sample_ids_N, seed=self.draws.seed, epoch=0, stream=Stream.FLIP) + self.draws.epoch) % 2 == 1

    def _holes(self, height: int, width: int, positions_N: Tensor) -> Tensor:
        """Float mask (N, H, W), 0 in a square around a uniform centre, cut at the edges. Source: arXiv:1708.04552."""
        side = self.config.cutout
        tops_N = self.draws.below(height, positions_N, Stream.CUTOUT_Y) - side // 2
        lefts_N = self.draws.below(width, positions_N, Stream.CUTOUT_X) - side // 2
        return (~inside_boxes((height, width), tops_N, tops_N + side, lefts_N, lefts_N + side)).float()

    def _erased(self, height: int, width: int, positions_N: Tensor) -> Tensor:
        """Float mask (N, H, W), 0 in the erased rectangle, inside the image, of each image that has one."""
        uniform = partial(self.draws.uniform, positions_N)
        low, high = _ERASED_AREA
        area_N = low + (high - low) * uniform(Stream.ERASE_AREA)
        narrow, tall = (math.log(aspect) for aspect in _ERASED_ASPECT)
        aspect_N = torch.exp(narrow + (tall - narrow) * uniform(Stream.ERASE_ASPECT))
        chosen_N = uniform(Stream.ERASE) < self.config.random_erase
        rows_N = (torch.sqrt(area_N * aspect_N) * height).round().clamp(1, height) * chosen_N
        columns_N = (torch.sqrt(area_N / aspect_N) * width).round().clamp(1, width)
        tops_N = (uniform(Stream.ERASE_Y) * (height - rows_N + 1)).floor()
        lefts_N = (uniform(Stream.ERASE_X) * (width - columns_N + 1)).floor()
        return (~inside_boxes((height, width), tops_N, tops_N + rows_N, lefts_N, lefts_N + columns_N)).float()


def _resized(images_NCHW: Tensor, side: int) -> Tensor:
    if images_NCHW.shape[-1] == side:
        return images_NCHW
    return functional.interpolate(images_NCHW, (side, side), mode="bilinear", antialias=True, align_corners=False)


def _inside(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices at the edges without repeating the edge pixel, as torch's `reflect` padding does."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
