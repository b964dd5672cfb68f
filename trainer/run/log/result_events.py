"""What a run produces: steps, epochs, evaluations, layer statistics, pictures, checkpoints and exports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from trainer.run.log.event import Event, HeldOut
from trainer.run.log.log_types import Amount, Positive, Rate, Share


@dataclass(frozen=True, kw_only=True)
class Steps(Event):
    """Consecutive optimizer steps.

    Attributes:
        first_step: Number of the first step, from 1.
        loss: Mean training loss of each step.
        accuracy: Training top-1 of each step, 0 to 1, on augmented images.
        lr: Learning rate of each step.
        images: Number of images in these steps.
        seconds: Duration of these steps in seconds, without pauses, evaluations and saves.
        budget: Seconds since the last start or resume by activity: data, compute, evaluate, save. Published every five seconds,
            empty in all other lines.
        skipped: Numbers of the skipped steps, whose loss or gradient was not finite.
    """

    kind: ClassVar[str] = "steps"
    durable: ClassVar[bool] = False
    same_length: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "lr")
    first_step: Positive
    loss: Annotated[list[float | None], bool]
    accuracy: list[Share]
    lr: list[float]
    images: int
    seconds: Amount
    budget: dict[str, float] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """The last step of an epoch has ended.

    Attributes:
        epoch: Epoch number, from 1.
        train_loss: Mean over the steps that were not skipped; null when all were.
        train_accuracy: Top-1 over the same steps, 0 to 1; null when all were skipped.
        seconds: Duration of its steps in seconds.
    """

    kind: ClassVar[str] = "epoch"
    epoch: int
    step: int
    train_loss: float | None
    train_accuracy: Share | None
    lr: float
    seconds: Amount


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """Held-out images were evaluated.

    Attributes:
        epoch: Epochs trained so far; a fraction in mid-epoch.
        accuracy: Plain top-1, 0 to 1.
        accuracy_tta: Top-1 of the mean logits of image and mirror image, where that is configured.
        correct: Number of correct predictions for the images of each class.
        counts: Number of images of each class.
        predicted: Number of predictions of each class.
        confusions: For each class the ten classes most often predicted for its images instead: index and number, alternating.
        silent: Share of channels that were 0 for all examined images (`layer_stats`), by the convolution that produces them,
            where there are any.
        weights: `raw` or `ema`.
        best: Whether this is the best accuracy so far on the selection split.
        trigger: `epoch`, `key` or `end`.
    """

    kind: ClassVar[str] = "evaluation"
    same_length: ClassVar[tuple[str, ...]] = ("correct", "counts", "predicted", "confusions")
    split: HeldOut
    epoch: Amount
    step: int
    loss: float | None
    accuracy: Share
    accuracy_tta: Share | None = None
    correct: list[int]
    counts: list[int]
    predicted: list[int] = field(default_factory=list)
    confusions: list[list[int]] = field(default_factory=list)
    silent: dict[str, Share] = field(default_factory=dict)
    weights: str = "raw"
    best: bool = False
    trigger: str = "epoch"
    seconds: Amount = 0.0

    def is_consistent(self) -> bool:
        """Whether no class has more correct answers than images, and all confusions name existing classes."""
        wrong = [count - right for count, right in zip(self.counts, self.correct, strict=True)]
        return min(wrong, default=0) >= 0 and all(
            len(taken) % 2 == 0 and sum(taken[1::2]) <= images and max(taken[::2], default=0) < len(wrong)
            for taken, images in zip(self.confusions, wrong, strict=False)
        )


@dataclass(frozen=True, kw_only=True)
class LayersMeasured(Event):
    """Weights at the end of an epoch and gradients of its last step, by layer (`trainer.model.layer_stats`).

    Attributes:
        epoch: Epochs trained so far.
        names: Layer names as in the state dict, starting at the image.
        parameters: Number of weights of each layer.
        weight_norms: Euclidean norm of each layer's weights.
        weight_ranges: Range r of each weight histogram, whose bins have equal widths from -r to r.
        weights: Histogram counts of some thousands of weights of each layer.
        gradient_norms: Norms of the gradients as the optimizer got them; null where a layer is frozen or a value is not finite.
        gradient_ranges: Range of each gradient histogram; null where a layer is frozen.
        gradients: Histogram counts of the gradients; empty where a layer is frozen.
    """

    kind: ClassVar[str] = "layers"
    same_length: ClassVar[tuple[str, ...]] = (
        "names", "parameters", "weight_norms", "weight_ranges", "weights", "gradient_norms", "gradient_ranges", "gradients",
    )  # fmt: skip
    epoch: Amount
    step: int
    names: list[str]
    parameters: list[int]
    weight_norms: list[float | None]
    weight_ranges: list[float]
    weights: list[list[int]]
    gradient_norms: list[float | None]
    gradient_ranges: list[float | None]
    gradients: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class PicturesSaved(Event):
    """Small pictures to look at were saved to a file (`trainer.evaluation.picture_sheet`).

    Attributes:
        what: `training`, images as the network receives them, or `mistakes`, the most confident ones of an evaluation.
        split: Split of the images.
        epoch: As in `Evaluated`; for training images the number of their epoch, from 1.
        path: File, relative to the run directory.
    """

    kind: ClassVar[str] = "pictures"
    what: str
    split: str
    step: int
    epoch: Amount
    path: str
    images: int


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """A checkpoint is on disk, verified and published."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    path: str
    size_bytes: int
    sha256: str
    pinned: bool
    best: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckpointFailed(Event):
    """A checkpoint could not be written; training continues."""

    kind: ClassVar[str] = "checkpoint_failed"
    step: int
    error: str


@dataclass(frozen=True, kw_only=True)
class LrRangeTested(Event):
    """Learning rates were tried on a copy of the state.

    Attributes:
        step: Steps done so far.
        lrs: Learning rates, ascending.
        losses: Smoothed loss at each rate.
        suggestion: Suggested learning rate; null where the loss fell at none.
        reason: Why this rate is suggested, or why none.
    """

    kind: ClassVar[str] = "lr_range"
    same_length: ClassVar[tuple[str, ...]] = ("lrs", "losses")
    step: int
    lrs: list[Rate]
    losses: list[float]
    suggestion: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class ExportProgress(Event):
    """Progress of an export.

    Attributes:
        stage: Current activity, such as "checking on 256 images".
        fraction: Progress, 0 to 1.
    """

    kind: ClassVar[str] = "export_progress"
    durable: ClassVar[bool] = False
    stage: str
    fraction: float


@dataclass(frozen=True, kw_only=True)
class Exported(Event):
    """The ONNX file is in place and was proven equal to the model.

    Attributes:
        max_abs_diff: Largest absolute difference of a logit over all compared images.
        images: Number of compared images.
        accuracy: Top-1 of the exported weights on `split`, where it is known.
        files: Size, hash, accuracy and speed of each file.
    """

    kind: ClassVar[str] = "exported"
    step: int
    path: str
    size_bytes: int
    max_abs_diff: float
    images: int
    accuracy: Share | None
    split: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportFailed(Event):
    """The export failed: no ONNX file was announced; an earlier one is untouched."""

    kind: ClassVar[str] = "export_failed"
    error: str
