"""Training images as the network receives them: augmented, mixed, at the size of the epoch.

Every draw is a hash of the image's place in the epoch's order, so these are exactly the images of the training steps.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config.schema import Config
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.augment.mixing import Mixer
from trainer.data.batches.batches import BatchPlan
from trainer.data.dataset import Split
from trainer.data.image_folder import FolderSplit
from trainer.data.prepare import PreparedData
from trainer.evaluation.picture_sheet import Sheet
from trainer.evaluation.result_files import name_of
from trainer.model.activation_map import activation_maps, heat_of
from trainer.model.resnet import build_model
from trainer.training.interim_evaluation import evaluation_batch
from trainer.training.snapshot import TensorCopy

_CPU = torch.device("cpu")
SHOWN = 32
_MIN_INTERVAL_S = 60.0  # seconds between two samples, so that short epochs do not spend their time on them


@dataclass(frozen=True)
class Weights:
    """A copy of the network's weights, and a network on the CPU that takes them."""

    copy: TensorCopy
    model: nn.Module


class TrainingImages:
    """Decides when to sample images again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._model: nn.Module | None = None
        self._size, self._sampled_s = 0, -math.inf

    def due(self, epoch: int) -> bool:
        """Whether to sample an epoch (from 0): after a minute, and when its image size changes."""
        size, now = self._config.data.size_in(epoch), time.monotonic()
        if size == self._size and now - self._sampled_s < _MIN_INTERVAL_S:
            return False
        self._size, self._sampled_s = size, now
        return True

    def weights_of(self, model: nn.Module, num_classes: int) -> Weights:
        """A copy of a network's weights as they are now. The network that takes them is built once, on this thread."""
        if self._model is None:
            self._model = build_model(self._config.model, num_classes, self._config.run.seed).eval()
        return Weights(TensorCopy(model.state_dict()), self._model)


def training_images(data: PreparedData, config: Config, plan: BatchPlan, epoch: int, weights: Weights) -> Sheet:
    """The first images of an epoch (from 0), with the activation maps of their classes, computed on the CPU."""
    split, classes = data.dataset.splits["train"], data.dataset.classes
    first, batch = plan.rows_of(plan.order(epoch), 0)
    # Each image is mixed with the one before it; the first one with the last of the batch.
    places = [len(batch) - 1, *range(min(SHOWN, len(batch)))]
    pixels_NHWC, kept = _readable(split, batch[places].tolist())
    rows, positions = batch[places][kept], first + torch.tensor(places)[kept]
    normalize = Normalize.of(data.mean, data.std, _CPU)
    augment = Augment(config=config.data, normalize=normalize, seed=config.run.seed)
    images_NCHW = augment(pixels_NHWC, torch.arange(len(rows)), rows, positions, epoch)
    names = [classes[label] for label in split.labels_N[rows].tolist()]
    captions: list[dict[str, Any]] = [
        {"class": name, "name": name_of(split, row, "train")}
        for name, row in zip(names[1:], rows[1:].tolist(), strict=True)
    ]
    mixer = Mixer.of(config.data, _CPU)
    shown_NCHW = images_NCHW[1:]
    if mixer is not None:
        mix = mixer(positions[1:], augment.draws, images_NCHW.shape[-1])
        shown_NCHW = mix(shown_NCHW, images_NCHW[:-1])
        for caption, share, other in zip(captions, mix.share_N.tolist(), names, strict=False):
            caption |= {"share": round(share, 3), "mixed_with": other}
    for caption, heat_YX in zip(captions, _heat(weights, shown_NCHW, split.labels_N[rows[1:]], config), strict=False):
        caption["heat"] = heat_YX
    return Sheet(
        pixels_NHWC=_pixels(shown_NCHW, normalize).numpy(), captions=captions, facts={"size": images_NCHW.shape[-1]}
    )


def _heat(weights: Weights, images_NCHW: Tensor, labels_N: Tensor, config: Config) -> list[list[list[int]]]:
    """How much each place of an image speaks for its class, 0 to 255; of the first images, as many as take about a second."""
    few = evaluation_batch(config, _CPU)
    weights.model.load_state_dict(weights.copy.fetched())
    heat: list[list[list[int]]] = heat_of(activation_maps(weights.model, images_NCHW[:few], labels_N[:few])[1]).tolist()
    return heat


def _readable(split: Split, rows: list[int]) -> tuple[Tensor, list[int]]:
    """Pixels on the CPU, and their indices in `rows`; unreadable images are skipped, as in training."""
    if isinstance(split, FolderSplit):
        reading = split.read(rows, threads=None)
        return reading.pixels_NHWC, reading.kept
    return split.pixels(rows).cpu(), list(range(len(rows)))


def _pixels(images_NCHW: Tensor, normalize: Normalize) -> Tensor:
    """uint8 pixels (N, H, W, C) from normalised ones; erased holes get the mean colour."""
    scaled_NHWC = images_NCHW.permute(0, 2, 3, 1) * normalize.std_C + normalize.mean_C
    return (scaled_NHWC * 255).round().clamp(0, 255).to(torch.uint8)
