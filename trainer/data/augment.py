"""From uint8 pixels to a normalised training batch, batched, on the device, in one gather.

Crop, padding and flip only change which pixel is read, so they are index arithmetic: the batch is gathered straight from
the whole data set, which stays uint8. Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import DataConfig
from trainer.data.draws import Stream, draw, draw_below


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Mean and standard deviation of each channel on the 0-1 scale, on the device of the images."""

    mean_C: Tensor
    std_C: Tensor

    @classmethod
    def of(cls, mean: list[float], std: list[float], device: torch.device) -> Normalize:
        """From plain numbers."""
        return cls(mean_C=torch.tensor(mean, device=device), std_C=torch.tensor(std, device=device))

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """uint8 to float32 of the same shape."""
        scale = 1.0 / (255.0 * self.std_C)
        return pixels_NHWC.float() * scale - self.mean_C / self.std_C


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Makes training batches.

    Attributes:
        config: Flip, crop, padding and cutout.
        normalize: Applied after the crop, before the cutout (so that the hole holds the mean).
        seed: Of the run.
    """

    config: DataConfig
    normalize: Normalize
    seed: int

    def __call__(
        self, pixels_MHWC: Tensor, rows_N: Tensor, sample_ids_N: Tensor, positions_N: Tensor, epoch: int
    ) -> Tensor:
        """Gather, augment and normalise.

        Args:
            pixels_MHWC: uint8, all images or those of this batch.
            rows_N: int64, which of them make the batch.
            sample_ids_N: int64, their numbers in the training split (the alternating flip hangs on the image).
            positions_N: int64, their positions in the epoch's order (all other draws hang on the position).
            epoch: From 0.

        Returns:
            float32 (N, C, H, W) in channels_last memory.
        """
        _, height, width, channels = pixels_MHWC.shape
        ys_NH, xs_NW = self._windows(height, width, positions_N, epoch)
        flip_N1 = self._flips(sample_ids_N, positions_N, epoch)[:, None]
        xs_NW = torch.where(flip_N1, xs_NW.flip(1), xs_NW)
        inside_NHW = None
        if self.config.crop_pad and self.config.pad == "zero":
            inside_NHW = _inside(ys_NH, height)[:, :, None] & _inside(xs_NW, width)[:, None, :]
            ys_NH, xs_NW = ys_NH.clamp(0, height - 1), xs_NW.clamp(0, width - 1)
        elif self.config.crop_pad:
            ys_NH, xs_NW = _reflect(ys_NH, height), _reflect(xs_NW, width)
        flat_NHW = (rows_N[:, None, None] * height + ys_NH[:, :, None]) * width + xs_NW[:, None, :]
        picked = pixels_MHWC.reshape(-1, channels).index_select(0, flat_NHW.reshape(-1))
        batch_NHWC = picked.view(*flat_NHW.shape, channels)
        if inside_NHW is not None:
            batch_NHWC = batch_NHWC * inside_NHW[..., None]
        images_NHWC = self.normalize(batch_NHWC)
        if self.config.cutout:
            images_NHWC = images_NHWC * self._holes(height, width, positions_N, epoch)[..., None]
        return images_NHWC.permute(0, 3, 1, 2)

    def _windows(self, height: int, width: int, positions_N: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        rows_H = torch.arange(height, device=positions_N.device)
        columns_W = torch.arange(width, device=positions_N.device)
        pad = self.config.crop_pad
        if not pad:
            shape = positions_N.shape[0]
            return rows_H.expand(shape, -1), columns_W.expand(shape, -1)
        tops_N = draw_below(2 * pad + 1, positions_N, seed=self.seed, epoch=epoch, stream=Stream.CROP_Y) - pad
        lefts_N = draw_below(2 * pad + 1, positions_N, seed=self.seed, epoch=epoch, stream=Stream.CROP_X) - pad
        return tops_N[:, None] + rows_H, lefts_N[:, None] + columns_W

    def _flips(self, sample_ids_N: Tensor, positions_N: Tensor, epoch: int) -> Tensor:
        """Which images are mirrored. Alternating flip: K. Jordan, arXiv:2404.00498, section 3.6."""
        if self.config.flip == "none":
            return torch.zeros_like(positions_N, dtype=torch.bool)
        if self.config.flip == "random":
            return draw(positions_N, seed=self.seed, epoch=epoch, stream=Stream.FLIP) % 2 == 1
        return (draw(sample_ids_N, seed=self.seed, epoch=0, stream=Stream.FLIP) + epoch) % 2 == 1

    def _holes(self, height: int, width: int, positions_N: Tensor, epoch: int) -> Tensor:
        """Float mask (N, H, W), 0 in a square whose centre is uniform over the image and which the edges may cut.

        Source: DeVries and Taylor, arXiv:1708.04552.
        """
        side = self.config.cutout
        masks = []
        for size, stream in ((height, Stream.CUTOUT_Y), (width, Stream.CUTOUT_X)):
            centres_N = draw_below(size, positions_N, seed=self.seed, epoch=epoch, stream=stream)
            offsets = torch.arange(size, device=positions_N.device) - (centres_N - side // 2)[:, None]
            masks.append((offsets >= 0) & (offsets < side))
        return (~(masks[0][:, :, None] & masks[1][:, None, :])).float()


def _inside(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices at the edges without repeating the edge pixel, as torch's `reflect` padding does."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
