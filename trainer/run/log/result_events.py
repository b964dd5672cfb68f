"""Events for what a run produces: steps, epochs, evaluations, layer statistics, pictures, checkpoints and exports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from trainer.run.log.event import Event, HeldOut
from trainer.run.log.log_types import Amount, Positive, Rate, Share


@dataclass(frozen=True, kw_only=True)
class Steps(Event):
    """Consecutive optimizer steps; one value per step in each list."""

    kind: ClassVar[str] = "steps"
    durable: ClassVar[bool] = False
    same_length: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "lr")
    first_step: Positive  # from 1
    loss: Annotated[list[float | None], bool]  # mean training loss; null where it was not finite
    accuracy: list[Share]  # training top-1, on augmented images
    lr: list[float]
    images: int  # in all of these steps
    seconds: Amount  # of these steps, without pauses, evaluations and saves
    budget: dict[str, float] = field(default_factory=dict)  # seconds by activity since the start or resume; every 5 s
    skipped: list[int] = field(default_factory=list)  # steps whose loss or gradient was not finite


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """The last step of an epoch has ended. Means are over the steps that were not skipped; null when all were."""

    kind: ClassVar[str] = "epoch"
    epoch: int  # from 1
    step: int
    train_loss: float | None
    train_accuracy: Share | None
    lr: float
    seconds: Amount  # of its steps


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """Held-out images were evaluated.

    For each class, `confusions` has the ten most frequent wrong predictions: class and number of images, alternating.
    """

    kind: ClassVar[str] = "evaluation"
    same_length: ClassVar[tuple[str, ...]] = ("correct", "counts", "predicted", "confusions")
    split: HeldOut
    epoch: Amount  # epochs trained so far; a fraction in mid-epoch
    step: int
    loss: float | None
    accuracy: Share  # plain top-1
    accuracy_tta: Share | None = None  # top-1 of the mean logits of image and mirror image, if configured
    correct: list[int]  # correct predictions for the images of each class
    counts: list[int]  # images of each class
    predicted: list[int] = field(default_factory=list)  # predictions of each class
    confusions: list[list[int]] = field(default_factory=list)
    silent: dict[str, Share] = field(default_factory=dict)  # share of channels that are 0 for all images, by layer
    weights: str = "raw"  # or `ema`
    best: bool = False  # so far, on the selection split
    trigger: str = "epoch"  # or `key`, `end`
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

    A histogram has bins of equal width from -r to r, where r is its range. Norms are Euclidean.
    """

    kind: ClassVar[str] = "layers"
    same_length: ClassVar[tuple[str, ...]] = (
        "names", "parameters", "weight_norms", "weight_ranges", "weights", "gradient_norms", "gradient_ranges", "gradients",
    )  # fmt: skip
    epoch: Amount  # epochs trained so far
    step: int
    names: list[str]  # as in the state dict, starting at the image
    parameters: list[int]  # number of weights
    weight_norms: list[float | None]
    weight_ranges: list[float]
    weights: list[list[int]]  # histograms of some thousands of weights
    gradient_norms: list[float | None]  # as the optimizer got them; null where frozen or not finite
    gradient_ranges: list[float | None]  # null where frozen
    gradients: list[list[int]]  # histograms; empty where frozen


@dataclass(frozen=True, kw_only=True)
class PicturesSaved(Event):
    """Small pictures to look at were saved to a file (`trainer.evaluation.picture_sheet`)."""

    kind: ClassVar[str] = "pictures"
    what: str  # `training`: as the network receives them; `mistakes`: the most confident ones
    split: str
    step: int
    epoch: Amount  # as in `Evaluated`; for training images the epoch's number, from 1
    path: str  # relative to the run directory
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
    """Learning rates were tried on a copy of the state."""

    kind: ClassVar[str] = "lr_range"
    same_length: ClassVar[tuple[str, ...]] = ("lrs", "losses")
    step: int  # steps done so far
    lrs: list[Rate]  # ascending
    losses: list[float]  # smoothed
    suggestion: float | None  # null where the loss fell at no rate
    reason: str  # for this suggestion, or for none


@dataclass(frozen=True, kw_only=True)
class ExportProgress(Event):
    """Progress of an export."""

    kind: ClassVar[str] = "export_progress"
    durable: ClassVar[bool] = False
    stage: str  # such as "checking on 256 images"
    fraction: float  # 0 to 1


@dataclass(frozen=True, kw_only=True)
class Exported(Event):
    """The ONNX file is in place and was proven equal to the model."""

    kind: ClassVar[str] = "exported"
    step: int
    path: str
    size_bytes: int
    max_abs_diff: float  # of any logit, over all compared images
    images: int  # compared
    accuracy: Share | None  # top-1 of the exported weights on `split`, if known
    split: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # size, hash, accuracy and speed of each


@dataclass(frozen=True, kw_only=True)
class ExportFailed(Event):
    """The export failed. No ONNX file was announced, and an earlier one is untouched."""

    kind: ClassVar[str] = "export_failed"
    error: str
