"""Evaluation on held-out images: loss, top-1, the confusion matrix, plain and with flip test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.augment.augment import Normalize
from trainer.data.batches.batches import evaluation_batches
from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import Split
from trainer.errors import DataLostError
from trainer.evaluation.mistakes import MistakeCollector, Mistakes
from trainer.evaluation.scores import class_scores, confusions_of
from trainer.evaluation.tables import as_csv, confusion_table, per_class_table
from trainer.host.atomic_files import write_atomically
from trainer.model.layer_stats import SilentChannels
from trainer.model.numerics import Numerics

_PAD_LAST_BATCH_ON = ("cuda",)  # these choose kernels per shape, so the last batch is padded with empty images
_MAX_LOGGED_CONFUSIONS = 10  # largest number logged per class: with a hundred classes already some kilobytes


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of one pass over a split."""

    loss: float  # mean cross-entropy without label smoothing
    accuracy: float  # plain top-1, 0 to 1
    accuracy_tta: float | None  # top-1 of the mean logits of image and mirror image; None when not requested
    confusion_KK: Tensor  # int64 on the CPU; row is the true class, column the predicted one
    mistakes: Mistakes | None  # the most confident ones
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
) -> Evaluation:
    """Evaluate a model on every image of a split. The model is left in eval mode.

    `poll` gets the share done before each batch and may raise to stop. `lost` receives the images that have become
    unreadable; DataLostError when these are most of a batch, or all images.
    """
    model.eval()
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    # Losses are summed in fp32 within a batch; the sums stay on the device until the end.
    loss_sum = torch.zeros((), device=device)
    correct_tta = torch.zeros((), dtype=torch.int64, device=device)
    mistakes, silent = MistakeCollector(), SilentChannels()
    done = 0
    filled_up = device.type in _PAD_LAST_BATCH_ON and len(split) > batch_size
    for pixels_NHWC, labels_N, rows in evaluation_batches(split, batch_size, device, lost):
        poll(done / len(split))
        if not len(labels_N):
            continue
        images_NCHW = numerics.to_memory_format(normalize(pixels_NHWC).permute(0, 3, 1, 2))
        if filled_up and len(images_NCHW) < batch_size:
            images_NCHW = functional.pad(images_NCHW, (0, 0) * 3 + (0, batch_size - len(images_NCHW)))
        with silent.watching(model, len(labels_N)):
            logits_NK = _logits(model, images_NCHW, numerics)[: len(labels_N)]
        loss_sum += functional.cross_entropy(logits_NK, labels_N, reduction="sum")
        mistakes.add(pixels_NHWC, rows, labels_N, logits_NK)
        answers_N = _answers(logits_NK, labels_N)
        confusion.scatter_add_(0, labels_N * num_classes + answers_N, torch.ones_like(labels_N))
        if tta:
            mirrored_NK = _logits(model, numerics.to_memory_format(images_NCHW.flip(3)), numerics)[: len(labels_N)]
            correct_tta += (_answers(logits_NK + mirrored_NK, labels_N) == labels_N).sum()
        done += len(labels_N)
    if not done:
        raise DataLostError(
            f"none of the {len(split)} images to evaluate can be read any more; restore them, then resume"
        )
    confusion_KK = confusion.view(num_classes, num_classes).cpu()
    return Evaluation(
        loss=float(loss_sum) / done,
        accuracy=int(confusion_KK.diagonal().sum()) / done,
        accuracy_tta=int(correct_tta) / done if tta else None,
        confusion_KK=confusion_KK,
        mistakes=mistakes.result(),
        silent=silent.shares(),
    )


def write_tables(evaluation: Evaluation, classes: tuple[str, ...], folder: Path) -> None:
    """Write `per_class.csv` and `confusion.csv` for an evaluation; OSError when that fails."""
    confusion_KK = evaluation.confusion_KK.numpy()
    tables = {
        "per_class.csv": per_class_table(classes, class_scores(confusion_KK)),
        "confusion.csv": confusion_table(classes, confusion_KK.tolist()),
    }
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        write_atomically(folder / name, as_csv(rows))


def _logits(model: nn.Module, images_NCHW: Tensor, numerics: Numerics) -> Tensor:
    with numerics.autocast(images_NCHW.device):
        logits: Tensor = model(images_NCHW)
    return logits.float()


def _answers(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Most probable class of each image: int64 (N,). Where logits are not finite, a wrong class."""
    wrong_N = (labels_N + 1) % logits_NK.shape[1]
    return torch.where(logits_NK.isfinite().all(1), logits_NK.argmax(1), wrong_N)
