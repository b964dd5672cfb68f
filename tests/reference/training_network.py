"""The forward pass of a ResNet with basic blocks, in float64, over a dictionary of weights with torchvision's names.

Sources: He et al., arXiv:1512.03385, section 3.4 and figure 2 (left); Ioffe and Szegedy, arXiv:1502.03167, algorithms 1 and 2.
Shapes: N images, C channels, H height, W width, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5
"""Added to the variance in batch norm (PyTorch's default)."""
KEEP = 0.9
"""Share of the running statistics that a training step keeps (PyTorch's momentum of 0.1)."""


def stage_of(name: str) -> int:
    """Stage of a tensor: 0 stem, 1 to 4 the layers, 5 the classifier."""
    first = name.split(".")[0]
    return {"conv1": 0, "bn1": 0, "layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4, "fc": 5}[first]


@dataclass
class Network:
    """Forward passes that update running statistics.

    Attributes:
        weights: Parameters by name, float64.
        statistics: Running means and variances by name, float64; replaced by each training pass.
        stem: As `model.stem`.
        frozen: Stages below this number use their running statistics and do not change them.
        keep: Share of the running statistics that one pass keeps.
        bits: Significant bits of the numbers between two layers and of their gradients: 8 in bf16, 11 in fp16; None for all.
        margins: Distance of each ReLU and max-pool to the nearest jump of its gradient.
        spreads: Factor by which each batch norm in training amplifies rounding: the largest size of its inputs relative to
            their standard deviation.
    """

    weights: dict[str, Tensor]
    statistics: dict[str, Tensor]
    stem: str
    frozen: int = 0
    keep: float = KEEP
    bits: int | None = None
    margins: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Images to the input of the classifier (N, F)."""
        large = self.stem == "imagenet"
        maps = self._convolution(images_NCHW, "conv1", stride=2 if large else 1, padding=3 if large else 1)
        maps = self._relu(self._batch_norm(maps, "bn1"))
        if self.stem != "cifar":
            maps = self._max_pool(maps)
        for layer in (1, 2, 3, 4):
            block = 0
            while f"layer{layer}.{block}.conv1.weight" in self.weights:
                maps = self._block(maps, f"layer{layer}.{block}", stride=2 if layer > 1 and block == 0 else 1)
                block += 1
        return self._stored(maps.mean((2, 3)))

    def logits(self, features_NF: Tensor, mask_NF: Tensor | None = None) -> Tensor:
        """Features to logits (N, K), with a dropout mask."""
        seen_NF = features_NF if mask_NF is None else self._stored(features_NF * self._stored(mask_NF))
        weight_KF, bias_K = self._stored(self.weights["fc.weight"]), self._stored(self.weights["fc.bias"])
        return self._stored(seen_NF @ weight_KF.t() + bias_K)

    def _block(self, maps: Tensor, name: str, *, stride: int) -> Tensor:
        inner = self._convolution(maps, f"{name}.conv1", stride=stride, padding=1)
        inner = self._relu(self._batch_norm(inner, f"{name}.bn1"))
        inner = self._convolution(inner, f"{name}.conv2", stride=1, padding=1)
        inner = self._batch_norm(inner, f"{name}.bn2")
        if f"{name}.downsample.0.weight" in self.weights:
            maps = self._convolution(maps, f"{name}.downsample.0", stride=stride, padding=0)
            maps = self._batch_norm(maps, f"{name}.downsample.1")
        return self._relu(self._stored(inner + maps))

    def _convolution(self, maps: Tensor, name: str, *, stride: int, padding: int) -> Tensor:
        kernel = self._stored(self.weights[f"{name}.weight"])
        return self._stored(functional.conv2d(self._stored(maps), kernel, stride=stride, padding=padding))

    def _batch_norm(self, maps_NCHW: Tensor, name: str) -> Tensor:
        if stage_of(name) < self.frozen:
            mean_C, variance_C = self.statistics[f"{name}.running_mean"], self.statistics[f"{name}.running_var"]
        else:
            mean_C = maps_NCHW.mean((0, 2, 3))
            variance_C = ((maps_NCHW - mean_C[:, None, None]) ** 2).mean((0, 2, 3))
            size_C = (mean_C**2 + variance_C).sqrt() / (variance_C + EPSILON).sqrt()
            self.spreads.append(float(size_C.detach().max()))
            count = maps_NCHW.numel() / maps_NCHW.shape[1]
            self._remember(f"{name}.running_mean", mean_C.detach())
            self._remember(f"{name}.running_var", variance_C.detach() * count / (count - 1))
        normal = (maps_NCHW - mean_C[:, None, None]) / (variance_C[:, None, None] + EPSILON).sqrt()
        scale_C, shift_C = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self._stored(normal * scale_C[:, None, None] + shift_C[:, None, None])

    def _remember(self, name: str, seen_C: Tensor) -> None:
        self.statistics[name] = self.keep * self.statistics[name] + (1 - self.keep) * seen_C

    def _stored(self, values: Tensor) -> Tensor:
        """Values rounded to the precision, as are their gradients."""
        rounded: Tensor = values if self.bits is None else _Rounded.apply(values, self.bits)
        return rounded

    def _relu(self, maps: Tensor) -> Tensor:
        self.margins.append(float(maps.detach().abs().min()))
        return maps * (maps > 0)

    def _max_pool(self, maps: Tensor) -> Tensor:
        """3x3, stride 2, padding 1. Equal values come from equal patches of the image, so any of them gives the same gradient."""
        padded = functional.pad(maps.detach(), (1, 1, 1, 1))
        first, second = padded.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4).topk(2).values.unbind(-1)
        gaps = (first - second)[(first > second + 1e-12) & (first > 0)]
        self.margins.append(float(gaps.min()) if len(gaps) else torch.inf)
        return functional.max_pool2d(maps, 3, stride=2, padding=1)


class _Rounded(torch.autograd.Function):
    """Rounds values and their gradients to a number of significant bits."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bits: int) -> Tensor:
        ctx.bits = bits
        return _rounded(values, bits)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        return _rounded(gradients, ctx.bits), None


def _rounded(values: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2.0**bits).round() / 2.0**bits, exponent)
