"""Small networks to evaluate: a residual network, a detector of black images, and one that looks its answers up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class TinyResNet(nn.Module):
    """Stem, two basic blocks (the second with a downsample) and a classifier, with torchvision's names and few channels."""

    def __init__(self, num_classes: int, seed: int, silent: float = 0.0) -> None:
        """Draw random weights and batch-norm statistics; a share `silent` of the channels is always 0 after the ReLU."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(5)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(5, 5))
        shortcut = nn.Sequential(nn.Conv2d(5, 7, 1, stride=2, bias=False), nn.BatchNorm2d(7))
        self.layer2 = nn.Sequential(BasicBlock(5, 7, stride=2, downsample=shortcut))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(7, num_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in self.state_dict().items():
                if value.is_floating_point():
                    spread = 0.5 if value.ndim == 1 else (2 / value[0].numel()) ** 0.5
                    value.copy_(torch.randn(value.shape, generator=generator) * spread)
                    if name.endswith("running_var"):
                        value.abs_().add_(0.5)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.add_(1.0)
                    module.bias.sub_(1e3 * (torch.rand(module.bias.shape, generator=generator) < silent))

    def stem(self, images_NCHW: Tensor) -> Tensor:
        """Images to the first block's input."""
        features: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images_NCHW))))
        return features

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Images to logits (N, K)."""
        logits: Tensor = self.fc(self.avgpool(self.layer2(self.layer1(self.stem(images_NCHW)))).flatten(1))
        return logits


class BlackDetector(nn.Module):
    """Has one channel, which is active for images of only zeros; its logits are all 0."""

    def __init__(self) -> None:
        super().__init__()
        self.maxpool = nn.Identity()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Images to logits (N, 2)."""
        black_N111: Tensor = self.maxpool((images_NCHW == 0).flatten(1).all(1).float()[:, None, None, None])
        return 0.0 * black_N111.flatten(1).repeat(1, 2)


class LookUp(nn.Module):
    """Answers with a row of a table, whose number is the red of the upper left pixel; takes pixels from 0 to 255."""

    def __init__(self, table_MK: Tensor) -> None:
        super().__init__()
        self.table_MK = table_MK
        self.maxpool = nn.Identity()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Images to logits (N, K)."""
        return self.table_MK[self.maxpool(images_NCHW)[:, 0, 0, 0].round().long()]
