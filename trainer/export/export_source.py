"""The model to export, and the images on which it is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config.schema import Config
from trainer.data.augment.augment import Normalize
from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import DataSet, Split
from trainer.data.draws import epoch_order
from trainer.data.prepare import load_held_out
from trainer.errors import DataError, ExportError
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.host.progress import Progress
from trainer.model.checkpoint import Checkpoint
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A checkpoint's model with its data."""

    checkpoint: Checkpoint
    model: nn.Module  # fp32, on the CPU, in eval mode, contiguous
    config: Config
    dataset: DataSet
    split: str  # held-out split on which it is evaluated
    normalize: Normalize
    preprocess: dict[str, Any]  # from a picture to the model's input
    embed: bool  # the files include the preprocessing: from uint8 pixels to probabilities

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, config: Config, progress: Progress, *, tested: bool, embed: bool
    ) -> ExportSource:
        """Build the model and load its images; DataError or ExportError when they do not fit.

        `tested`: the run has read its test images, so the export may be evaluated on them.
        """
        run = checkpoint.run
        model = build_model(config.model, len(run.classes), config.run.seed)
        model.load_state_dict(checkpoint.evaluated_weights)
        try:
            dataset = load_held_out(config, progress)
        except DataError as error:
            raise DataError(f"{error}\nIf the folder has moved, give its new place with --data DIR") from error
        if list(dataset.classes) != run.classes:
            raise ExportError(
                f"{config.data.root}: its classes differ from those the run was trained on; give the right folder with --data DIR"
            )
        split = "test" if tested and "test" in dataset.splits else run.selection_split
        return cls(
            checkpoint=checkpoint, model=model.eval(), config=config, dataset=dataset, split=split,
            normalize=Normalize.of(run.mean, run.std, torch.device("cpu")), preprocess=run.preprocess, embed=embed,
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return self.config.data.image_size

    @property
    def same_data(self) -> bool:
        """Whether the images are those the run was trained on."""
        return self.dataset.fingerprint == self.checkpoint.run.fingerprint

    @property
    def held_out(self) -> Split:
        """The held-out split on which it is evaluated."""
        return self.dataset.splits[self.split]

    def normalized(self, pixels_NHWC: Tensor) -> Tensor:
        """The model's input: float32 (N, 3, S, S), contiguous."""
        return self.normalize(pixels_NHWC).permute(0, 3, 1, 2).contiguous()

    def real_pixels(self, most: int) -> tuple[Tensor, int]:
        """Up to `most` images, held-out ones first, then training images: uint8 (N, S, S, 3), and how many are held-out."""
        held_out = _some(self.held_out, most)
        return torch.stack(held_out + _some(self.dataset.splits["train"], most - len(held_out))), len(held_out)

    def train_pixels(self, most: int) -> Tensor:
        """Training images, spread over the whole split: uint8 (N, S, S, 3)."""
        return torch.stack(_some(self.dataset.splits["train"], most))

    def measure(self, poll: Callable[[float], None], warn: Callable[[str], None]) -> Evaluation:
        """Evaluate the whole held-out split, in fp32."""
        return evaluate(
            self.model, self.held_out, normalize=self.normalize, numerics=Numerics(precision="fp32", channels_last=False),
            num_classes=len(self.dataset.classes), batch_size=min(self.config.eval.batch_size, 500), tta=False,
            device=torch.device("cpu"), poll=poll, lost=LostImages(warn),
        )  # fmt: skip


def _some(split: Split, count: int) -> list[Tensor]:
    """Up to `count` readable images, always the same, spread over the split: a folder starts with one class."""
    images: list[Tensor] = []
    for row in epoch_order(len(split), seed=0, epoch=0).tolist():
        if len(images) >= count:
            break
        with contextlib.suppress(DataError):
            images.append(split.pixels([row])[0].cpu())
    return images
