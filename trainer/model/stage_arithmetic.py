"""Shape of ResNet-18 stage by stage: sizes, parameters, multiply-adds. Torch-free.

Source: He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385, table 1; torchvision's `resnet18` for the
order of its layers.
"""

from __future__ import annotations

from dataclasses import dataclass

_WIDTHS = (64, 128, 256, 512)  # channels of the four stages of residual blocks; the first is also the stem's
_BLOCKS = 2  # residual blocks in each stage, each of two 3x3 convolutions


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the network between two map sizes.

    Channels and size (height and width in pixels; 1 for the classifier) are those of its output. `macs` are the
    multiply-adds of convolutions and classifier in a forward pass of one image.
    """

    name: str
    what: str
    channels: int
    size: int
    parameters: int
    macs: int


def stages(stem: str, image_size: int, num_classes: int) -> list[Stage]:
    """Stages from the image to the logits, named as in `trainer.config.freezing.STAGES`; sizes are in pixels."""
    found = [_stem(stem, image_size)]
    for index, width in enumerate(_WIDTHS):
        found.append(_residual(index, width, found[-1]))
    weights = _WIDTHS[-1] * num_classes
    classifier = Stage(
        name="classifier", what=f"mean of each map, linear to {num_classes:,}", channels=num_classes, size=1,
        parameters=weights + num_classes, macs=weights,
    )  # fmt: skip
    return [*found, classifier]


def _stem(stem: str, image_size: int) -> Stage:
    kernel, stride, size = (7, " by 2", _strided(image_size)) if stem == "imagenet" else (3, "", image_size)
    weights = kernel * kernel * 3 * _WIDTHS[0]
    pooled = stem != "cifar"
    return Stage(
        name="stem", what=f"conv {kernel}x{kernel}{stride}" + (", max-pool 3x3 by 2" if pooled else ""), channels=_WIDTHS[0],
        size=_strided(size) if pooled else size, parameters=weights + 2 * _WIDTHS[0], macs=weights * size * size,
    )  # fmt: skip


def _residual(index: int, width: int, before: Stage) -> Stage:
    halves = index > 0
    size = _strided(before.size) if halves else before.size
    weights = 9 * before.channels * width + (2 * _BLOCKS - 1) * 9 * width * width
    norms = 2 * _BLOCKS
    if halves:
        weights += before.channels * width  # the shortcut's 1x1 convolution
        norms += 1
    return Stage(
        name=f"layer{index + 1}", what=f"{_BLOCKS} residual blocks" + (", the first by 2" if halves else ""),
        channels=width, size=size, parameters=weights + norms * 2 * width, macs=weights * size * size,
    )  # fmt: skip


def _strided(size: int) -> int:
    """Height of a padded map after a stride of 2."""
    return (size + 1) // 2
