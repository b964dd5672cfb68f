"""Events for what a run produces: steps, epochs, evaluations, layer statistics, pictures, checkpoints and exports."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from trainer.run.log.event import Event, HeldOut
from trainer.run.log.log_types import Amount, Positive, Rate, Share


class Steps(Event, kind="steps", durable=False, same_length=("loss", "accuracy", "lr")):
    """Consecutive optimizer steps; one value per step in each list."""

    first_step: Positive  # from 1
    loss: Annotated[list[float | None], bool]  # mean training loss; null where it was not finite
    accuracy: list[Share]  # training top-1, on augmented images
    lr: list[float]
    images: int  # in all of these steps
    seconds: Amount  # of these steps, without pauses, evaluations and saves
    budget: dict[str, float] = field(default_factory=dict)  # seconds by activity since the start or resume; every 5 s
    skipped: list[int] = field(default_factory=list)  # steps whose loss or gradient was not finite


class EpochEnded(Event, kind="epoch"):
    """The last step of an epoch has ended. Means are over the steps that were not skipped; null when all were."""

    epoch: int  # from 1
    step: int
    train_loss: float | None
    train_accuracy: Share | None
    lr: float
    seconds: Amount  # of its steps


class Evaluated(Event, kind="evaluation", same_length=("correct", "counts", "predicted", "confusions")):
    """Held-out images were evaluated.

    For each class, `confusions` has the ten most frequent wrong predictions: class and number of images, alternating.
    """

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


class LayersMeasured(
    Event,
    kind="layers",
    same_length=(
        "names",
        "parameters",
        "weight_norms",
        "weight_ranges",
        "weights",
        "gradient_norms",
        "gradient_ranges",
        "gradients",
    ),
):
    """Weights at the end of an epoch and gradients of its last step, by layer (`trainer.model.layer_stats`).

    A histogram has bins of equal width from -r to r, where r is its range. Norms are Euclidean.
    """

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


class PicturesSaved(Event, kind="pictures"):
    """Small pictures to look at were saved to a file (`trainer.evaluation.picture_sheet`)."""

    what: str  # `training`: as the network receives them; `mistakes`: the most confident ones
    split: str
    step: int
    epoch: Amount  # as in `Evaluated`; for training images the epoch's number, from 1
    path: str  # relative to the run directory
    images: int


class CheckpointSaved(Event, kind="checkpoint"):
    """A checkpoint is on disk, verified and published."""

    step: int
    path: str
    size_bytes: int
    sha256: str
    pinned: bool
    best: bool
    seconds: float


class CheckpointFailed(Event, kind="checkpoint_failed"):
    """A checkpoint could not be written; training continues."""

    step: int
    error: str


class LrRangeTested(Event, kind="lr_range", same_length=("lrs", "losses")):
    """Learning rates were tried on a copy of the state."""

    step: int  # steps done so far
    lrs: list[Rate]  # ascending
    losses: list[float]  # smoothed
    suggestion: float | None  # null where the loss fell at no rate
    reason: str  # for this suggestion, or for none


class ExportProgress(Event, kind="export_progress", durable=False):
    """Progress of an export."""

    stage: str  # such as "checking on 256 images"
    fraction: float  # 0 to 1


class Exported(Event, kind="exported"):
    """The ONNX file is in place and was proven equal to the model."""

    step: int
    path: str
    size_bytes: int
    max_abs_diff: float  # of any logit, over all compared images
    images: int  # compared
    accuracy: Share | None  # top-1 of the exported weights on `split`, if known
    split: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # size, hash, accuracy and speed of each


class ExportFailed(Event, kind="export_failed"):
    """The export failed. No ONNX file was announced, and an earlier one is untouched."""

    error: str
