"""TrivialAugment, batched: each image gets one operation of random strength, and the whole batch is processed by few kernels.

Source: Müller and Hutter, arXiv:2103.10158, the "wide" space; operations and ranges as in torchvision's TrivialAugmentWide.
Unlike there, movements are bilinear and composed with the crop, so that the rest of the picture comes into view, not black.

The operations form three families, each one formula with one number per image: movements (an affine view), blends with a plainer
image (brightness, colour, contrast, sharpness), and lookup tables (posterize, solarize, autocontrast, equalize).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.data.augment.geometry import identity_views
from trainer.data.draws import EpochDraws, Stream

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness",
    "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip

_SHEAR, _SHIFT, _DEGREES, _BLEND = 0.99, 32 / 224, 135.0, 0.99  # largest strengths; a shift is a share of the side
_BITS = 6  # most of the eight bits that posterize removes
_GREY = (0.299, 0.587, 0.114)  # luma weights of ITU-R BT.601, as in Pillow's and torchvision's greyscale


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Operations drawn for a batch."""

    operation_N: Tensor  # int64, index in `OPERATIONS`
    strength_N: Tensor  # float32, 0 to 1, in 31 steps
    sign_N: Tensor  # float32, -1 or 1

    @classmethod
    def drawn(cls, positions_N: Tensor, draws: EpochDraws) -> Operations:
        """Draw the operations of images, given their positions in the epoch's order."""
        return cls(
            operation_N=draws.below(len(OPERATIONS), positions_N, Stream.TRIVIAL_OPERATION),
            strength_N=draws.below(31, positions_N, Stream.TRIVIAL_STRENGTH) / 30.0,
            sign_N=torch.where(draws.uniform(positions_N, Stream.TRIVIAL_SIGN) < 0.5, -1.0, 1.0),
        )

    def views(self) -> Tensor:
        """Movement of each image, the identity for other operations: float32 (N, 2, 3)."""
        signed_N = self.sign_N * self.strength_N
        views = identity_views(self.operation_N)
        views[:, 0, 1] += signed_N * _SHEAR * self._is("shear_x")
        views[:, 1, 0] += signed_N * _SHEAR * self._is("shear_y")
        # The grid's coordinates span 2.
        views[:, 0, 2] += signed_N * 2 * _SHIFT * self._is("translate_x")
        views[:, 1, 2] += signed_N * 2 * _SHIFT * self._is("translate_y")
        angle_N = signed_N * math.radians(_DEGREES) * self._is("rotate")
        turn = torch.stack((torch.cos(angle_N), -torch.sin(angle_N), torch.sin(angle_N), torch.cos(angle_N)), dim=1)
        rotates = self._is("rotate").bool()[:, None, None]
        views[:, :, :2] = torch.where(rotates, turn.view(-1, 2, 2), views[:, :, :2])
        return views

    def recolored(self, images_NHWC: Tensor) -> Tensor:
        """Apply blends and tables to images: float32, 0 to 255, in new memory."""
        return self._looked_up(self._blended(images_NHWC))

    def _is(self, name: str) -> Tensor:
        return (self.operation_N == OPERATIONS.index(name)).float()

    def _blended(self, images_NHWC: Tensor) -> Tensor:
        """Blend: `base + factor * (image - base)`, with a factor of 1 for other operations."""
        factor_N = torch.ones_like(self.strength_N)
        base_NHWC = torch.zeros_like(images_NHWC)
        # With plain numbers: copying a tensor of them to the device would block.
        red, green, blue = (weight * part for weight, part in zip(_GREY, images_NHWC.split(1, dim=3), strict=True))
        grey_NHW1 = red + green + blue
        bases = {
            "brightness": base_NHWC,
            "color": grey_NHW1,
            "contrast": grey_NHW1.mean((1, 2), keepdim=True),
            "sharpness": _smoothed(images_NHWC),
        }
        for name, plain in bases.items():
            chosen_N = self._is(name)
            factor_N = factor_N + self.sign_N * self.strength_N * _BLEND * chosen_N
            base_NHWC = torch.where(chosen_N.bool()[:, None, None, None], plain, base_NHWC)
        blended = base_NHWC + factor_N[:, None, None, None] * (images_NHWC - base_NHWC)
        return blended.clamp(0.0, 255.0)

    def _looked_up(self, images_NHWC: Tensor) -> Tensor:
        """Map values through a lookup table for each image and channel."""
        values_NLC = images_NHWC.round().long().flatten(1, 2)
        found = self._tables(values_NLC).gather(1, values_NLC).view_as(images_NHWC)
        tabled_N = self.operation_N >= OPERATIONS.index("posterize")
        return torch.where(tabled_N[:, None, None, None], found, images_NHWC)

    def _tables(self, values_NLC: Tensor) -> Tensor:
        """Lookup tables, the new value of each old one: float32 (N, 256, C)."""
        value_V = torch.arange(256, device=values_NLC.device)
        bits_N = (self.strength_N * _BITS).round().long()
        # Strength 0 leaves every value below the threshold.
        threshold_N = 256.0 * (1.0 - self.strength_N)
        posterized = (value_V >> bits_N[:, None] << bits_N[:, None]).float()
        solarized = torch.where(value_V < threshold_N[:, None], value_V, 255 - value_V).float()
        counts_NVC = _counts(values_NLC)
        tables = {
            "posterize": posterized[:, :, None],
            "solarize": solarized[:, :, None],
            "autocontrast": _stretched(values_NLC, value_V),
            "equalize": _equalized(counts_NVC, value_V),
        }
        table_NVC = value_V.float()[None, :, None].expand_as(counts_NVC)
        for name, table in tables.items():
            table_NVC = torch.where(self._is(name).bool()[:, None, None], table, table_NVC)
        return table_NVC


def _counts(values_NLC: Tensor) -> Tensor:
    """How often each value from 0 to 255 occurs in an image and channel: float32 (N, 256, C)."""
    images, _, channels = values_NLC.shape
    number_N11 = torch.arange(images, device=values_NLC.device)[:, None, None]
    cells_NLC = (number_N11 * 256 + values_NLC) * channels + torch.arange(channels, device=values_NLC.device)
    # Along one axis: the deterministic sum along several copies from the host in older versions of torch.
    counts = torch.zeros(images * 256 * channels, device=values_NLC.device)
    counts.scatter_add_(0, cells_NLC.flatten(), torch.ones(cells_NLC.numel(), device=values_NLC.device))
    return counts.view(images, 256, channels)


def _smoothed(images_NHWC: Tensor) -> Tensor:
    """Blur 3x3 with a weight of 5 of 13 at the centre; the outermost pixels stay. Source: Pillow's ImageFilter.SMOOTH."""
    images_NCHW = images_NHWC.permute(0, 3, 1, 2)
    channels = images_NCHW.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, device=images_NHWC.device)
    kernel[:, :, 1, 1] = 5.0
    smoothed = images_NCHW.clone()
    smoothed[:, :, 1:-1, 1:-1] = functional.conv2d(images_NCHW, kernel / 13.0, groups=channels)
    return smoothed.permute(0, 2, 3, 1)


def _stretched(values_NLC: Tensor, value_V: Tensor) -> Tensor:
    """Autocontrast: the darkest value of a channel becomes 0, the brightest 255; a channel with one value is unchanged."""
    low_N1C = values_NLC.amin(1, keepdim=True).float()
    high_N1C = values_NLC.amax(1, keepdim=True).float()
    scale = 255.0 / (high_N1C - low_N1C).clamp(min=1.0)
    value_1V1 = value_V.float()[None, :, None]
    stretched = ((value_1V1 - low_N1C) * scale).floor().clamp(0.0, 255.0)
    return torch.where(high_N1C > low_N1C, stretched, value_1V1)


def _equalized(counts_NVC: Tensor, value_V: Tensor) -> Tensor:
    """Histogram equalization as in Pillow's ImageOps.equalize: the step excludes the count of the brightest value that occurs."""
    total_N1C = counts_NVC.sum(1, keepdim=True)
    brightest_N1C = ((counts_NVC > 0) * value_V[None, :, None]).amax(1, keepdim=True)
    step_N1C = ((total_N1C - counts_NVC.gather(1, brightest_N1C)) / 255.0).floor()
    # Of whole numbers: on a GPU, older versions of torch have no deterministic sum of floats along an axis.
    below_NVC = counts_NVC.long().cumsum(1) - counts_NVC
    equalized = ((below_NVC + (step_N1C / 2.0).floor()) / step_N1C.clamp(min=1.0)).floor().clamp(0.0, 255.0)
    return torch.where(step_N1C > 0, equalized, value_V.float()[None, :, None])
