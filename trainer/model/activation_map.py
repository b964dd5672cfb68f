"""Class activation maps: which places of an image speak for a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.model.resnet import head_of


@torch.no_grad()
def activation_maps(model: nn.Module, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K), and their maps (N, K, h, w) over the last features; the mean of a map is its logit.

    Exact for a ResNet: the logits are a linear function of the mean over all places, so that the same function of each
    place gives the share of that place. The model is in eval mode. Source: B. Zhou et al., Learning Deep Features for
    Discriminative Localization, arXiv:1512.04150, section 2.
    """
    features: list[Tensor] = []
    handle = model.get_submodule("avgpool").register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    try:
        logits_NK: Tensor = model(images_NCHW)
    finally:
        handle.remove()
    head = head_of(model)
    maps_NKYX = functional.conv2d(features[0].to(head.weight.dtype), head.weight[:, :, None, None], head.bias)
    return logits_NK.float(), maps_NKYX


def map_of(maps_NKYX: Tensor, labels_N: Tensor) -> Tensor:
    """The maps of one class of each image: (N, h, w)."""
    return maps_NKYX[torch.arange(len(labels_N), device=maps_NKYX.device), labels_N]


def heat_of(maps_NYX: Tensor) -> Tensor:
    """Evidence for the class as a share of the largest in its map: uint8, 0 to 255. Evidence against it is 0, as is NaN."""
    positive = maps_NYX.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
    largest = positive.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return (positive / largest * 255).round().to(torch.uint8)
