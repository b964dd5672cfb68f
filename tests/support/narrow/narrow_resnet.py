"""ResNet-18 with an eighth of the channels, but 16 in the first stages.

With fewer than 16, backward passes of strided 1x1 convolutions in channels_last write beyond their memory (oneDNN, issue 6035).
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

WIDTHS = (16, 16, 32, 64)


def narrow_resnet18(*, weights: None = None, num_classes: int = 1000) -> ResNet:
    """A network with 187,000 parameters for 10 classes instead of 11.2 million."""
    assert weights is None
    with torch.device("meta"):
        model = ResNet(BasicBlock, [2, 2, 2, 2])
    model.inplanes = WIDTHS[0]
    model.conv1 = nn.Conv2d(3, WIDTHS[0], kernel_size=7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(WIDTHS[0])
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    for number, (width, stride) in enumerate(zip(WIDTHS, (1, 2, 2, 2), strict=True), 1):
        setattr(model, f"layer{number}", model._make_layer(BasicBlock, width, 2, stride=stride))
    model.fc = nn.Linear(WIDTHS[-1], num_classes)
    return model
