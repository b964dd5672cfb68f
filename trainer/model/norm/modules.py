"""The network's blocks and first norm, each of which can fuse batch norm with what follows it in training."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from trainer.model.norm.fused import fused_norm


class Block(BasicBlock):  # type: ignore[misc]
    """torchvision's block; with `fused`, training takes norm, addition and ReLU in one pass. Frozen norms are never fused."""

    fused = False

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) to features of the block's width and stride."""
        if not (self.fused and self.bn1.training):
            result: Tensor = super().forward(x)
            return result
        inner = fused_norm(self.conv1(x), self.bn1)
        shortcut = x
        if self.downsample is not None:
            convolution, norm = self.downsample
            shortcut = fused_norm(convolution(x), norm, relu=False)
        return fused_norm(self.conv2(inner), self.bn2, add=shortcut)


class StemNorm(nn.BatchNorm2d):
    """The first norm, with the ReLU that follows it unless a max-pool comes first (`trainer.model.resnet`)."""

    def __init__(self, num_features: int, *, relu: bool) -> None:
        super().__init__(num_features)
        self.relu = relu
        self.fused = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.BatchNorm2d's own name
        """Features (N, C, H, W) to features of the same shape."""
        if self.fused and self.training:
            return fused_norm(input, self, relu=self.relu)
        normal = super().forward(input)
        return normal.relu_() if self.relu else normal
