"""Evaluation on held-out images: loss, top-1, the confusion matrix, plain and with flip test-time augmentation.

The most confident mistakes are kept with their pixels: they show wrong labels and classes that look alike.

Shapes: N images of a batch, M mistakes kept, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.augment.augment import Normalize
from trainer.data.batches.batches import evaluation_batches
from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import Split
from trainer.errors import DataLostError
from trainer.evaluation.scores import class_scores, confusions_of
from trainer.evaluation.tables import write_class_tables
from trainer.model.activation_map import activation_maps, heat_of
from trainer.model.layer_stats import SilentChannels
from trainer.model.numerics import Numerics

_PAD_LAST_BATCH_ON = ("cuda",)  # these choose kernels per shape, so the last batch is padded with empty images
MAX_MISTAKES = 32
_MAX_LOGGED_CONFUSIONS = 10  # largest number logged per class: with a hundred classes already some kilobytes


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Misclassified images, the most confident first. On the CPU."""

    pixels_MHWC: Tensor  # uint8
    rows: list[int]  # row numbers in their split
    labels: list[int]
    predicted: list[int]
    confidences: list[float]  # probabilities of the predicted classes, 0 to 1
    heat_MYX: Tensor | None = None  # uint8, 0 to 255: how much each place speaks for the predicted class


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of one pass over a split."""

    loss: float  # mean cross-entropy without label smoothing
    accuracy: float  # plain top-1, 0 to 1
    accuracy_tta: float | None  # top-1 of the mean logits of image and mirror image; None when not requested
    confusion_KK: Tensor  # int64 on the CPU; row is the true class, column the predicted one
    mistakes: Mistakes | None  # the most confident ones; None where there are none
    silent: dict[str, float]  # share of channels that were 0 for all images, by convolution; only those with any

    @property
    def correct(self) -> list[int]:
        """Number of correct predictions in each class."""
        return [int(value) for value in self.confusion_KK.diagonal()]

    @property
    def counts(self) -> list[int]:
        """Number of images in each class."""
        return [int(value) for value in self.confusion_KK.sum(1)]

    @property
    def predicted(self) -> list[int]:
        """Number of predictions of each class."""
        return [int(value) for value in self.confusion_KK.sum(0)]

    @property
    def confusions(self) -> list[list[int]]:
        """Most frequent wrong predictions for each class: alternately the class and its number of images."""
        return confusions_of(self.confusion_KK.numpy(), most=_MAX_LOGGED_CONFUSIONS)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    normalize: Normalize,
    numerics: Numerics,
    num_classes: int,
    batch_size: int,
    tta: bool,
    device: torch.device,
    poll: Callable[[float], None],
    lost: LostImages,
    explain: bool = False,
) -> Evaluation:
    """Evaluate a model on every image of a split. The model is left in eval mode.

    `explain` adds the activation maps of the kept mistakes. `poll` gets the share done before each batch and may raise to
    stop. `lost` receives the images that have become unreadable; DataLostError when these are most of a batch, or all.
    """
    model.eval()
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    # Losses are summed in fp32 within a batch; the sums stay on the device until the end.
    loss_sum = torch.zeros((), device=device)
    correct_tta = torch.zeros((), dtype=torch.int64, device=device)
    mistakes, silent = MistakeCollector(), SilentChannels()
    num_evaluated = 0
    pad_last_batch = device.type in _PAD_LAST_BATCH_ON and len(split) > batch_size
    for pixels_NHWC, labels_N, rows in evaluation_batches(split, batch_size, device, lost):
        poll(num_evaluated / len(split))
        if not len(labels_N):
            continue
        images_NCHW = numerics.to_memory_format(normalize(pixels_NHWC).permute(0, 3, 1, 2))
        if pad_last_batch and len(images_NCHW) < batch_size:
            images_NCHW = functional.pad(images_NCHW, (0, 0) * 3 + (0, batch_size - len(images_NCHW)))
        with silent.watching(model, len(labels_N)):
            logits_NK = _logits(model, images_NCHW, numerics)[: len(labels_N)]
        loss_sum += functional.cross_entropy(logits_NK, labels_N, reduction="sum")
        mistakes.add(pixels_NHWC, rows, labels_N, logits_NK)
        predicted_N = _predictions(logits_NK, labels_N)
        confusion.scatter_add_(0, labels_N * num_classes + predicted_N, torch.ones_like(labels_N))
        if tta:
            mirrored_NK = _logits(model, numerics.to_memory_format(images_NCHW.flip(3)), numerics)[: len(labels_N)]
            correct_tta += (_predictions(logits_NK + mirrored_NK, labels_N) == labels_N).sum()
        num_evaluated += len(labels_N)
    if not num_evaluated:
        raise DataLostError(
            f"none of the {len(split)} images to evaluate can be read any more; restore them, then resume"
        )
    kept = mistakes.result()
    if kept is not None and explain:
        kept = _with_heat(model, kept, normalize, numerics, device, batch_size, poll)
    confusion_KK = confusion.view(num_classes, num_classes).cpu()
    return Evaluation(
        loss=float(loss_sum) / num_evaluated,
        accuracy=int(confusion_KK.diagonal().sum()) / num_evaluated,
        accuracy_tta=int(correct_tta) / num_evaluated if tta else None,
        confusion_KK=confusion_KK,
        mistakes=kept,
        silent=silent.shares(),
    )


def write_tables(evaluation: Evaluation, classes: tuple[str, ...], folder: Path) -> None:
    """Write `per_class.csv` and `confusion.csv` for an evaluation; OSError when that fails."""
    confusion_KK = evaluation.confusion_KK.numpy()
    folder.mkdir(exist_ok=True)
    write_class_tables(folder, classes, class_scores(confusion_KK), confusion_KK.tolist())


def _with_heat(
    model: nn.Module, mistakes: Mistakes, normalize: Normalize, numerics: Numerics, device: torch.device, batch_size: int,
    poll: Callable[[float], None],
) -> Mistakes:  # fmt: skip
    """Mistakes with the activation maps of the predicted classes, computed in batches like those of the evaluation."""
    predicted_M = torch.tensor(mistakes.predicted, device=device)
    parts = []
    for pixels_NHWC, labels_N in zip(
        mistakes.pixels_MHWC.split(batch_size), predicted_M.split(batch_size), strict=True
    ):
        poll(1.0)
        images_NCHW = numerics.to_memory_format(normalize(pixels_NHWC.to(device)).permute(0, 3, 1, 2))
        with numerics.autocast(device):
            parts.append(heat_of(activation_maps(model, images_NCHW, labels_N)[1]))
    return replace(mistakes, heat_MYX=torch.cat(parts).cpu())


def _logits(model: nn.Module, images_NCHW: Tensor, numerics: Numerics) -> Tensor:
    with numerics.autocast(images_NCHW.device):
        logits: Tensor = model(images_NCHW)
    return logits.float()


def _predictions(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Most probable class of each image: int64 (N,). Where logits are not finite, a wrong class."""
    wrong_N = (labels_N + 1) % logits_NK.shape[1]
    return torch.where(logits_NK.isfinite().all(1), logits_NK.argmax(1), wrong_N)


class MistakeCollector:
    """Keeps the most confident mistakes on the device, so that a pass waits for the device only once, at its end."""

    def __init__(self) -> None:
        self._kept: list[Tensor] | None = None

    def add(self, pixels_NHWC: Tensor, rows: Sequence[int], labels_N: Tensor, logits_NK: Tensor) -> None:
        """Add the mistakes of a batch; its uint8 pixels are kept to be shown."""
        confidence_N, predicted_N = logits_NK.softmax(1).max(1)
        # An image with NaN logits is no confident mistake, and must not rank above those that are.
        confidence_N = torch.where(predicted_N == labels_N, -1.0, confidence_N.nan_to_num(nan=0.0))
        rows_N = torch.tensor(rows, dtype=torch.int64).to(labels_N.device, non_blocking=True)
        found = [confidence_N, rows_N, labels_N, predicted_N, pixels_NHWC]
        self._kept = _most_confident(found) if self._kept is None else _joined(self._kept, _most_confident(found))

    def result(self) -> Mistakes | None:
        """Return the mistakes; None where every image was classified correctly."""
        if self._kept is None:
            return None
        confidence_M, rows_M, labels_M, predicted_M, pixels_MHWC = (part.cpu() for part in self._kept)
        wrong = int((confidence_M >= 0).sum())
        if not wrong:
            return None
        return Mistakes(
            pixels_MHWC=pixels_MHWC[:wrong], rows=rows_M[:wrong].tolist(), labels=labels_M[:wrong].tolist(),
            predicted=predicted_M[:wrong].tolist(), confidences=confidence_M[:wrong].tolist(),
        )  # fmt: skip


def _most_confident(found: list[Tensor]) -> list[Tensor]:
    order = found[0].sort(descending=True, stable=True).indices[:MAX_MISTAKES]
    return [part[order] for part in found]


def _joined(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    return _most_confident([torch.cat(parts) for parts in zip(first, second, strict=True)])
