"""An evaluation in plain PyTorch: one image at a time, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tests.reference.evaluation_networks import TinyResNet


@dataclass
class PlainEvaluation:
    """Results of an evaluation.

    Attributes:
        loss: Mean cross-entropy.
        accuracy_tta: Top-1 accuracy of the mean logits of image and mirror image.
        confusion: Number of images by true class and answer.
        mistakes: Row, true class, answer and its probability, the most confident first.
        margin: Smallest distance between the first and second logit, which rounding errors must not reach.
    """

    loss: float = 0.0
    accuracy: float = 0.0
    accuracy_tta: float = 0.0
    confusion: list[list[int]] = field(default_factory=list)
    mistakes: list[tuple[int, int, int, float]] = field(default_factory=list)
    margin: float = math.inf


def scaled(pixels_HWC: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A normalised image, float64 (1, C, H, W)."""
    channels = [(pixels_HWC[..., c].double() / 255 - mean[c]) / std[c] for c in range(3)]
    return torch.stack(channels)[None]


@torch.no_grad()
def plain_evaluation(
    model: nn.Module, pixels_NHWC: Tensor, labels: Sequence[int], mean: Sequence[float], std: Sequence[float],
    num_classes: int,
) -> PlainEvaluation:  # fmt: skip
    """Evaluate all images, also mirrored."""
    exact = copy.deepcopy(model).double().eval()
    result = PlainEvaluation(confusion=[[0] * num_classes for _ in range(num_classes)])
    for row, label in enumerate(labels):
        image_1CHW = scaled(pixels_NHWC[row], mean, std)
        width = image_1CHW.shape[3]
        mirrored_1CHW = image_1CHW[:, :, :, [width - 1 - column for column in range(width)]]
        logits_K, mirrored_K = exact(image_1CHW)[0], exact(mirrored_1CHW)[0]
        both_K = (logits_K + mirrored_K) / 2
        probabilities_K = torch.exp(logits_K) / torch.exp(logits_K).sum()
        answer = int(logits_K.argmax())
        result.confusion[label][answer] += 1
        result.loss -= math.log(float(probabilities_K[label])) / len(labels)
        result.accuracy += (answer == label) / len(labels)
        result.accuracy_tta += (int(both_K.argmax()) == label) / len(labels)
        if answer != label:
            result.mistakes.append((row, label, answer, float(probabilities_K[answer])))
        for ranked in (logits_K.sort().values, both_K.sort().values):
            result.margin = min(result.margin, float(ranked[-1] - ranked[-2]))
    result.mistakes.sort(key=lambda mistake: -mistake[3])
    return result


@torch.no_grad()
def plain_silence(model: TinyResNet, images_NCHW: Tensor) -> dict[str, float]:
    """Share of channels that are 0 everywhere in every image, by the convolution before the ReLU; zero shares are omitted."""
    exact = copy.deepcopy(model).double().eval()
    features_NCHW = exact.stem(images_NCHW)
    shares = {"conv1": _silent_share(features_NCHW)}
    for name in ("layer1", "layer2"):
        block = getattr(exact, name)[0]
        inner_NCHW = block.bn1(block.conv1(features_NCHW)).clamp(min=0)
        past_NCHW = features_NCHW if block.downsample is None else block.downsample(features_NCHW)
        features_NCHW = (block.bn2(block.conv2(inner_NCHW)) + past_NCHW).clamp(min=0)
        shares |= {f"{name}.0.conv1": _silent_share(inner_NCHW), f"{name}.0.conv2": _silent_share(features_NCHW)}
    return {name: share for name, share in shares.items() if share}


def _silent_share(features_NCHW: Tensor) -> float:
    channels = range(features_NCHW.shape[1])
    return sum(not bool((features_NCHW[:, channel] != 0).any()) for channel in channels) / len(channels)
