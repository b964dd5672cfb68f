"""Training images in float64, each computed from its draws: crop, flip, normalise, cut out, erase, mix.

Only the draws come from the trainer; those of an image depend on seed, epoch and position alone.
Shapes: C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tests.reference.training_draws import Draws
from trainer.config.data_config import DataConfig
from trainer.data.draws import Stream

Quantile = Callable[[float, float], float]
"""The value of Beta(a, a) below which a given share lies."""


def size_in(config: DataConfig, epoch: int) -> int:
    """Side of the training images in an epoch."""
    sides = [size for size, epochs in config.progressive for _ in range(epochs)]
    return sides[epoch] if epoch < len(sides) else config.image_size


def training_image(
    pixels_HWC: Tensor, sample: int, draws: Draws, config: DataConfig, mean: list[float], std: list[float]
) -> Tensor:
    """One image (C, side, side) from uint8 pixels, augmented and normalised, not mixed; `sample` is its number in the split."""
    image = pixels_HWC.double().permute(2, 0, 1)
    image = _random_crop(image, draws, config)
    if _is_flipped(sample, draws, config):
        image = image.flip(2)
    image = (image / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[:, None, None]
    _, height, width = image.shape
    if config.cutout:
        top = draws.whole(Stream.CUTOUT_Y) % height - config.cutout // 2
        left = draws.whole(Stream.CUTOUT_X) % width - config.cutout // 2
        image[:, max(top, 0) : max(top + config.cutout, 0), max(left, 0) : max(left + config.cutout, 0)] = 0
    if draws.uniform(Stream.ERASE) < config.random_erase:
        _erase(image, draws)
    size = size_in(config, draws.epoch)
    if size != height:
        image = functional.interpolate(image[None], (size, size), mode="bilinear", antialias=True)[0]
    return image


def _is_flipped(sample: int, draws: Draws, config: DataConfig) -> bool:
    if config.flip == "random":
        return draws.whole(Stream.FLIP) % 2 == 1
    if config.flip == "alternate":  # drawn once for each image, then every second epoch: arXiv:2404.00498, section 3.6
        return (Draws(draws.seed, 0, sample).whole(Stream.FLIP) + draws.epoch) % 2 == 1
    return False


def _random_crop(image: Tensor, draws: Draws, config: DataConfig) -> Tensor:
    if config.resized_crop is not None:
        return _resized_crop(image, draws, config)
    pad = config.crop_pad
    mode = "reflect" if config.pad == "reflect" else "constant"
    padded = functional.pad(image[None], (pad, pad, pad, pad), mode=mode)[0]
    top, left = draws.whole(Stream.CROP_Y) % (2 * pad + 1), draws.whole(Stream.CROP_X) % (2 * pad + 1)
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]].clone()


def _resized_crop(image: Tensor, draws: Draws, config: DataConfig) -> Tensor:
    """A box of random area and aspect ratio, resized bilinearly: arXiv:1409.4842, section 6."""
    assert config.resized_crop is not None
    area = config.resized_crop + (1 - config.resized_crop) * draws.uniform(Stream.CROP_AREA)
    aspect = (3 / 4) ** (1 - 2 * draws.uniform(Stream.CROP_ASPECT))  # 3/4 to 4/3, uniform in its logarithm
    height, width = min(math.sqrt(area / aspect), 1), min(math.sqrt(area * aspect), 1)
    rows = _sampling_weights(image.shape[1], height, draws.uniform(Stream.CROP_Y), config)
    columns = _sampling_weights(image.shape[2], width, draws.uniform(Stream.CROP_X), config)
    return rows @ image @ columns.t()


def _sampling_weights(length: int, share: float, place: float, config: DataConfig) -> Tensor:
    """Weights (image_size, length) of the pixels of one axis for each pixel of a crop."""
    weights = torch.zeros(config.image_size, length, dtype=torch.float64)
    for index in range(config.image_size):
        middle = ((1 - share) * place + share * (index + 0.5) / config.image_size) * length - 0.5
        if config.pad == "reflect":
            middle = min(max(middle, 0), length - 1)
        below = math.floor(middle)
        for pixel, weight in ((below, below + 1 - middle), (below + 1, middle - below)):
            if 0 <= pixel < length:
                weights[index, pixel] += weight
    return weights


def _erase(image: Tensor, draws: Draws) -> None:
    """Erase a rectangle of 2 to 33 % of the image, 0.3 to 3.3 times as high as wide: arXiv:1708.04896, section 4.1."""
    _, height, width = image.shape
    area = 0.02 + (0.33 - 0.02) * draws.uniform(Stream.ERASE_AREA)
    aspect = 0.3 * (3.3 / 0.3) ** draws.uniform(Stream.ERASE_ASPECT)
    rows = min(max(round(math.sqrt(area * aspect) * height), 1), height)
    columns = min(max(round(math.sqrt(area / aspect) * width), 1), width)
    top = math.floor(draws.uniform(Stream.ERASE_Y) * (height - rows + 1))
    left = math.floor(draws.uniform(Stream.ERASE_X) * (width - columns + 1))
    image[:, top : top + rows, left : left + columns] = 0


def mixed(image: Tensor, partner: Tensor, draws: Draws, config: DataConfig, quantile: Quantile) -> tuple[Tensor, float]:
    """An image mixed with its partner, and its own share of the label.

    Sources: MixUp, arXiv:1710.09412, equation 1; CutMix, arXiv:1905.04899, equations 1 and 2.
    """
    both = config.mixup > 0 and config.cutmix > 0
    cut = draws.uniform(Stream.MIX_KIND) < 0.5 if both else config.cutmix > 0
    share = quantile(config.cutmix if cut else config.mixup, draws.uniform(Stream.MIX_SHARE))
    if not cut:
        return share * image + (1 - share) * partner, share
    side = image.shape[-1]
    half = math.sqrt(1 - share) * side / 2
    y, x = draws.uniform(Stream.MIX_Y) * side, draws.uniform(Stream.MIX_X) * side
    top, bottom, left, right = (min(max(round(edge), 0), side) for edge in (y - half, y + half, x - half, x + half))
    mixed_image = image.clone()
    mixed_image[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    return mixed_image, 1 - (bottom - top) * (right - left) / side**2
