"""ResNet-18 with a quarter of the channels: 16 to 128.

With fewer than 16, backward passes of strided 1x1 convolutions in channels_last write beyond their memory (oneDNN, issue 6035).
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


def narrow_resnet18(*, weights: None = None, num_classes: int = 1000) -> ResNet:
    """A network with 701,000 parameters for 10 classes instead of 11.2 million."""
    assert weights is None
    with torch.device("meta"):
        model = ResNet(BasicBlock, [2, 2, 2, 2])
    model.inplanes = 16
    model.conv1, model.bn1 = nn.Conv2d(3, 16, kernel_size=7, stride=2, padding=3, bias=False), nn.BatchNorm2d(16)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    for number, stride in enumerate((1, 2, 2, 2)):
        layer = model._make_layer(BasicBlock, 16 << number, 2, stride=stride)
        setattr(model, f"layer{number + 1}", layer)
    model.fc = nn.Linear(128, num_classes)
    return model
