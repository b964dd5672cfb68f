"""ResNet-18 with the configured stem, classifier and frozen stages.

Source: He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385; the CIFAR stem (3x3, stride 1, no
max-pool) follows its section 4.2. The network itself is torchvision's, so its state dict has torchvision's names.
"""

from __future__ import annotations

from typing import cast

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from trainer.config.freezing import stage_of
from trainer.config.schema import ModelConfig
from trainer.data.draws import EpochDraws, Stream
from trainer.model.conv.modules import Conv1x1, Conv3x3
from trainer.model.norm.modules import Block, StemNorm

_DROPOUT_GRAIN = 1 << 20  # dropout draws whole numbers below this, so its rate is exact to one millionth

MACS_PER_PIXEL = {"imagenet": 36_100, "cifar": 542_000, "cifar-maxpool": 137_000}
"""Multiply-adds of a forward pass per pixel of a square image, by stem: 1.82e9 at 224, 0.556e9 and 0.140e9 at 32."""


class Head(nn.Linear):
    """The classifier, with dropout before it that draws by hash; call `aim` before each forward pass in training."""

    def __init__(self, in_features: int, out_features: int, *, dropout: float) -> None:
        super().__init__(in_features, out_features)
        self.dropout = dropout
        self._aim: tuple[Tensor, EpochDraws] | None = None

    def aim(self, positions_N: Tensor, draws: EpochDraws) -> None:
        """Set the images of the next forward pass, by their positions in the epoch's order."""
        self._aim = positions_N, draws

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's own name
        """Features (N, in_features) to logits (N, out_features)."""
        dropped = input * self._mask(input) if self.training and self.dropout else input
        return super().forward(dropped)

    def _mask(self, features_NF: Tensor) -> Tensor:
        assert self._aim is not None, "Head.aim must be called before a training forward pass"
        positions_N, draws = self._aim
        units_F = torch.arange(self.in_features, device=features_NF.device)
        cells_NF = positions_N[:, None] * self.in_features + units_F
        drawn = draws.below(_DROPOUT_GRAIN, cells_NF, Stream.DROPOUT)
        kept = drawn >= round(self.dropout * _DROPOUT_GRAIN)
        return kept.to(features_NF.dtype) / (1.0 - self.dropout)


class RectifiedMaxPool(nn.MaxPool2d):
    """ReLU and max-pool, whose order does not change the result.

    In training the ReLU comes last, where it processes only a quarter of the numbers, forward and backward; an exported
    network has the usual order, for which runtimes have kernels.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.MaxPool2d's own name
        """Features (N, C, H, W) to (N, C, H / 2, W / 2)."""
        pooled: Tensor = super().forward(input if self.training else input.relu())
        return pooled.relu_() if self.training else pooled


def build_model(config: ModelConfig, num_classes: int, seed: int) -> nn.Module:
    """Build a ResNet-18 on the CPU with random weights drawn from the seed; torch's global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torchvision.models.resnet18(weights=None)
        if config.stem != "imagenet":
            model.conv1 = nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        pools = config.stem != "cifar"
        model.bn1, model.relu = StemNorm(model.bn1.num_features, relu=not pools), nn.Identity()
        model.maxpool = RectifiedMaxPool(kernel_size=3, stride=2, padding=1) if pools else nn.Identity()
        model.fc = Head(model.fc.in_features, num_classes, dropout=config.dropout)
        for block in (*model.layer1, *model.layer2, *model.layer3, *model.layer4):
            block.__class__ = Block  # another forward pass over the same parts
            for name in ("conv1", "conv2"):
                setattr(block, name, _switchable_conv(getattr(block, name)))
            if block.downsample is not None:
                block.downsample[0] = _switchable_conv(block.downsample[0])
    return cast(nn.Module, model)


def _switchable_conv(conv: nn.Conv2d) -> Conv3x3 | Conv1x1:
    kind = Conv3x3 if conv.kernel_size == (3, 3) else Conv1x1
    with torch.device("meta"):  # its own weights are not even drawn
        replacement = kind(conv.in_channels, conv.out_channels, stride=conv.stride[0])
    replacement.weight = conv.weight
    return replacement


def head_of(model: nn.Module) -> Head:
    """The model's classifier."""
    return cast(Head, model.fc)


def set_train_mode(model: nn.Module, frozen: int) -> None:
    """Switch to training, except the first `frozen` stages (`trainer.config.freezing`), which get no gradients.

    They also keep their batch-norm statistics: running mean and variance are buffers that every training forward pass
    moves, whatever `requires_grad` is (pytorch/pytorch#86590).
    """
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage_of(name) >= frozen)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and stage_of(name) < frozen:
            module.eval()


def features_of(model: nn.Module, images_NCHW: Tensor) -> Tensor:
    """Features (N, 512) of images from the backbone, the classifier's input."""
    head = head_of(model)
    model.fc = nn.Identity()
    try:
        return cast(Tensor, model(images_NCHW))
    finally:
        model.fc = head


def describe_model(model: nn.Module, stem: str) -> dict[str, object]:
    """Name, stem and sizes for the header and the log."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {
        "name": "ResNet-18",
        "stem": stem,
        "parameters": sum(size for size, _ in sizes),
        "trainable": sum(size for size, trained in sizes if trained),
    }


def losses_of(logits_NK: Tensor, labels_N: Tensor, *, label_smoothing: float) -> Tensor:
    """Cross-entropy of each image in fp32, whatever the precision of the logits: (N,)."""
    return functional.cross_entropy(logits_NK.float(), labels_N, label_smoothing=label_smoothing, reduction="none")
