"""MixUp and CutMix: each image of a batch is mixed with the one before it in the epoch's order.

Sources: Zhang et al., mixup, arXiv:1710.09412; Yun et al., CutMix, arXiv:1905.04899. The share is drawn per image, not per
batch, so that it does not depend on how the epoch is cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainer.config.data_config import DataConfig
from trainer.data.augment.geometry import inside_boxes
from trainer.data.draws import EpochDraws, Stream

_QUANTILES = 4096
_LARGEST_LOGIT = 40.0  # of a share: 1 - 4e-18 is 1 in fp32


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Mixing weights and rectangles of each image of a batch and its partner."""

    share_N: Tensor  # float32, share of an image that is its own, which is also the weight of its label
    box_N4: Tensor  # float32, top, bottom, left and right of the partner's rectangle, in pixels; empty for MixUp
    cut_N: Tensor  # bool, whether CutMix is used

    def __call__(self, images_NCHW: Tensor, partners_NCHW: Tensor) -> Tensor:
        """Mix normalised images; same shape and memory layout."""
        height, width = images_NCHW.shape[2:]
        inside_NHW = inside_boxes((height, width), *self.box_N4.unbind(1))
        blend_N = torch.where(self.cut_N, 1.0, self.share_N)
        own_N1HW = (blend_N[:, None, None] * ~inside_NHW)[:, None]
        return images_NCHW * own_N1HW + partners_NCHW * (1.0 - own_N1HW)

    def loss(self, own_N: Tensor, partners_N: Tensor) -> Tensor:
        """Losses against both labels, weighted by the share."""
        return self.share_N * own_N + (1.0 - self.share_N) * partners_N


class Mixer:
    """Draws a `Mix` for each batch; the settings have `mixup`, `cutmix` or both above 0."""

    def __init__(self, config: DataConfig, device: torch.device) -> None:
        self._tables = {name: beta_quantiles(a).to(device) for name, a in _strengths(config).items()}

    @classmethod
    def of(cls, config: DataConfig, device: torch.device) -> Mixer | None:
        """The mixer of a run; None where nothing is mixed."""
        return cls(config, device) if _strengths(config) else None

    def __call__(self, positions_N: Tensor, draws: EpochDraws, side: int) -> Mix:
        """Draw the mixes of images, given their positions in the epoch's order."""
        uniform = partial(draws.uniform, positions_N)
        chance = {"mixup": 0.0, "cutmix": 1.0}
        cut_N = uniform(Stream.MIX_KIND) < (0.5 if len(self._tables) == 2 else chance[next(iter(self._tables))])
        drawn_N = uniform(Stream.MIX_SHARE)
        shares = {name: _interpolated(table, drawn_N) for name, table in self._tables.items()}
        share_N = torch.where(cut_N, shares.get("cutmix", drawn_N), shares.get("mixup", drawn_N))
        box_N4 = self._boxes(share_N, uniform(Stream.MIX_Y), uniform(Stream.MIX_X), side) * cut_N[:, None]
        areas_N = (box_N4[:, 1] - box_N4[:, 0]) * (box_N4[:, 3] - box_N4[:, 2])
        # The label's share is the share of pixels: the image's edge may have cut the rectangle.
        return Mix(share_N=torch.where(cut_N, 1.0 - areas_N / side**2, share_N), box_N4=box_N4, cut_N=cut_N)

    def _boxes(self, share_N: Tensor, y_N: Tensor, x_N: Tensor, side: int) -> Tensor:
        """Square with `1 - share` of the area around a uniform centre, in whole pixels, cut at the edges."""
        half_N = torch.sqrt(1.0 - share_N) * side / 2.0
        edges = [centre_N * side + sign * half_N for centre_N in (y_N, x_N) for sign in (-1.0, 1.0)]
        return torch.stack(edges, dim=1).round().clamp(0, side)


def beta_quantiles(a: float) -> Tensor:
    """Quantiles of Beta(a, a) at equally spaced probabilities from 0 to 1: float32 (4096,).

    The density is summed over the logit t of the value x, where it is smooth however small `a` is: (x (1 - x))**a with
    x = 1 / (1 + exp(-t)).
    """
    logits = torch.linspace(-_LARGEST_LOGIT, _LARGEST_LOGIT, 1 << 16, dtype=torch.float64)
    density = torch.exp(a * (torch.nn.functional.logsigmoid(logits) + torch.nn.functional.logsigmoid(-logits)))
    reached = torch.cumsum(density, 0)
    reached = (reached - reached[0]) / (reached[-1] - reached[0])
    wanted = torch.linspace(0.0, 1.0, _QUANTILES, dtype=torch.float64)
    index = torch.searchsorted(reached, wanted).clamp(max=len(logits) - 1)
    return torch.sigmoid(logits[index]).float()


def _strengths(config: DataConfig) -> dict[str, float]:
    return {name: a for name, a in (("mixup", config.mixup), ("cutmix", config.cutmix)) if a}


def _interpolated(table: Tensor, uniform_N: Tensor) -> Tensor:
    place_N = uniform_N * (len(table) - 1)
    below_N = place_N.long()
    return torch.lerp(table[below_N], table[(below_N + 1).clamp(max=len(table) - 1)], place_N - below_N)
