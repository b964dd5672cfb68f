"""Trains the classifier alone, on features of each image that the frozen backbone computes once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.data.augment.augment import Normalize
from trainer.data.batches.batches import evaluation_batches
from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import Split
from trainer.errors import DataLostError
from trainer.model.numerics import Numerics
from trainer.model.resnet import features_of


@torch.no_grad()
def compute_features(
    model: nn.Module,
    split: Split,
    *,
    normalize: Normalize,
    numerics: Numerics,
    image_size: int,
    batch_size: int,
    device: torch.device,
    poll: Callable[[float], None],
    lost: LostImages,
) -> Tensor:
    """Backbone features of every image of a split, not augmented: float32 (len(split), 512).

    Images that are kept larger than `image_size` are cropped to their centre. The model is left in eval mode. `poll`
    gets the share done before each batch and may raise to stop. DataLostError when an image can no longer be read.
    """
    model.eval()
    parts: list[Tensor] = []
    done = 0
    for pixels_NHWC, labels_N, _ in evaluation_batches(split, batch_size, device, lost):
        if len(labels_N) < min(batch_size, len(split) - done):
            raise DataLostError("an image that was readable at the start no longer is; restore it, then resume")
        poll(done / len(split))
        done += len(labels_N)
        images_NCHW = normalize(centre(pixels_NHWC, image_size)).permute(0, 3, 1, 2)
        with numerics.autocast(device):
            parts.append(features_of(model, numerics.to_memory_format(images_NCHW)).float())
    return torch.cat(parts)


def centre(pixels_NHWC: Tensor, side: int) -> Tensor:
    """The middle of images that are kept larger than the network's input, for random crops."""
    top, left = ((length - side) // 2 for length in pixels_NHWC.shape[1:3])
    return pixels_NHWC[:, top : top + side, left : left + side]
