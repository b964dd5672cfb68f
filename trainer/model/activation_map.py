"""Class activation maps: which places of an image speak for a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.model.resnet import head_of

_MAX_PLACES = 32  # of a map that is kept, in each direction: a picture on the screen has hardly more pixels


@torch.no_grad()
def activation_maps(model: nn.Module, images_NCHW: Tensor, labels_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits (N, K), and the map (N, h, w) of one class of each image: of its label, or of the most probable class.

    The mean of a map is the logit of its class less the mean of all logits. Exact for a ResNet: the logits are a linear
    function of the mean over all places, so that the same function of each place gives the share of that place. The mean
    is subtracted because only differences of logits decide; a part that all classes share says nothing. The model is
    in eval mode. Source: B. Zhou et al., Learning Deep Features for Discriminative Localization, arXiv:1512.04150,
    section 2.
    """
    features: list[Tensor] = []
    handle = model.get_submodule("avgpool").register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    try:
        logits_NK: Tensor = model(images_NCHW)
    finally:
        handle.remove()
    labels_N = logits_NK.argmax(1) if labels_N is None else labels_N
    head = head_of(model)
    weight_KF, bias_K = head.weight - head.weight.mean(0), head.bias - head.bias.mean()
    with torch.autocast(images_NCHW.device.type, enabled=False):
        maps_NYX = torch.einsum("nfyx,nf->nyx", features[0].to(weight_KF.dtype), weight_KF[labels_N])
    return logits_NK, maps_NYX + bias_K[labels_N][:, None, None]


def heat_of(maps_NYX: Tensor) -> Tensor:
    """Evidence for the class as a share of the largest in its map: uint8, 0 to 255. Evidence against it is 0, as is NaN.

    Maps of more than 32 places in a direction are reduced to the means of neighbours.
    """
    finite = maps_NYX.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if max(maps_NYX.shape[1:]) > _MAX_PLACES:
        height, width = (min(side, _MAX_PLACES) for side in maps_NYX.shape[1:])
        finite = functional.adaptive_avg_pool2d(finite[:, None], (height, width))[:, 0]
    positive = finite.clamp(min=0)
    largest = positive.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return (positive / largest * 255).round().to(torch.uint8)
