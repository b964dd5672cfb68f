"""Events of a run: frozen records that become one JSON line each in `events.jsonl`.

`trainer.run.log.codec` writes and reads the lines. Readers ignore unknown fields and kinds, so a field may be
added in any release; removing or redefining one raises `LOG_VERSION`. The format is documented in `docs/run-directory.md`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypedDict

from trainer.run.log.log_types import Amount, Positive, Rate, Share, UnixTime
from trainer.run.status import RunState

LOG_VERSION = 2


def _is_state(name: str) -> bool:
    return name in {state.value for state in RunState}


def _is_held_out(split: str) -> bool:
    return split in ("val", "test")


HeldOut = Annotated[str, _is_held_out]


def _is_pair(value: Sequence[Any]) -> bool:
    return len(value) == 2


def _is_sampled(value: Sequence[Sequence[float]]) -> bool:
    """Whether a schedule has as many steps as rates."""
    return len(value) == 2 and len(value[0]) == len(value[1])


SampledSchedule = Annotated[list[list[float]], _is_sampled]


class _Data(TypedDict, total=False):
    image_size: Positive
    progressive: list[Annotated[list[Positive], _is_pair]]


class _Eval(TypedDict, total=False):
    every_epochs: Positive


class _Checkpoint(TypedDict, total=False):
    every_s: Amount


class _Optim(TypedDict, total=False):
    lr: Amount


class _Config(TypedDict, total=False):
    """Entries of a configuration that viewers read."""

    data: _Data
    eval: _Eval
    checkpoint: _Checkpoint
    optim: _Optim


class _Model(TypedDict, total=False):
    """Entries of a model's description that viewers read."""

    parameters: int


Config = Annotated[dict[str, dict[str, Any]], _Config]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        kind: Name in the log.
        durable: Whether the writer must keep the event even when its queue is full.
        same_length: Names of lists of equal length. One that is empty by default may be empty.
    """

    kind: ClassVar[str] = ""
    durable: ClassVar[bool] = True
    same_length: ClassVar[tuple[str, ...]] = ()

    def is_consistent(self) -> bool:
        """Whether the fields, each valid by itself, agree with each other."""
        return True


@dataclass(frozen=True, kw_only=True)
class Opened(Event):
    """A trainer process has taken the run. Its first event, before torch is imported."""

    kind: ClassVar[str] = "opened"
    run: str
    directory: str
    pid: int
    host: str
    resume: bool
    config: Config
    log_version: int = LOG_VERSION


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Everything is built and the first step is next.

    Attributes:
        planned_lr: `[steps, rates]`, a sampling of the whole schedule without edits; steps count from 1 as in `steps`.
        selection_split: The split that chooses the best checkpoint, `val` or `test`.
        splits: Images in each split.
        choices: Precision, memory format and other decisions made by timing; a resume reuses them.
    """

    kind: ClassVar[str] = "started"
    classes: list[str]
    splits: dict[str, int]
    selection_split: HeldOut
    fingerprint: str
    model: Annotated[dict[str, Any], _Model]
    device: dict[str, Any]
    choices: dict[str, Any]
    epochs: Positive
    steps_per_epoch: Positive
    total_steps: int
    planned_lr: SampledSchedule
    versions: dict[str, str]
    skipped_images: int = 0


@dataclass(frozen=True, kw_only=True)
class StateChanged(Event):
    """The state of the run has changed.

    Attributes:
        state: A `trainer.run.status.RunState` value.
        detail: Current activity, such as "decoding images".
        fraction: Progress of that activity, 0 to 1, where it is known.
    """

    kind: ClassVar[str] = "state"
    state: Annotated[str, _is_state]
    detail: str = ""
    fraction: float | None = None


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
class Diverged(Event):
    """So many consecutive steps were skipped that the run is held until the user decides.

    Attributes:
        step: The last skipped step.
        in_a_row: Number of consecutive skipped steps.
        checkpoint: Checkpoint that a rollback would restore, empty when there is none.
    """

    kind: ClassVar[str] = "diverged"
    step: int
    in_a_row: int
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class StagesFrozen(Event):
    """Other stages of the network are frozen from the next step on.

    Attributes:
        step: Steps done so far.
        stages: Frozen stages, starting at the image; empty when all are trained.
        trainable: Number of trained parameters.
    """

    kind: ClassVar[str] = "frozen"
    step: int
    stages: list[str]
    trainable: int


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
class LrEdited(Event):
    """The user has scaled the rest of the schedule.

    Attributes:
        step: Steps done so far; the factor applies from the next one.
        lr: Learning rate of the next step.
    """

    kind: ClassVar[str] = "lr_edited"
    step: int
    factor: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class SettingsChanged(Event):
    """The plan of the run has changed.

    Attributes:
        step: Steps done so far.
        changes: Changed settings, as `key: old -> new`.
        config: Changed settings by group and key.
        epochs: Epochs of the whole run by the new plan; the remaining fields as in `Started`.
    """

    kind: ClassVar[str] = "settings"
    step: int
    changes: list[str]
    config: Config
    epochs: Positive
    total_steps: int
    planned_lr: SampledSchedule


@dataclass(frozen=True, kw_only=True)
class Noted(Event):
    """The user has added a note.

    Attributes:
        step: Steps done so far.
    """

    kind: ClassVar[str] = "note"
    step: int
    text: str


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


@dataclass(frozen=True, kw_only=True)
class Acknowledged(Event):
    """A command has taken effect, or was refused with a reason."""

    kind: ClassVar[str] = "ack"
    command_id: str
    command: str
    ok: bool
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """Training continues from a checkpoint: points after its step belong to an abandoned future.

    Attributes:
        lr_edits: (step, factor) of every edit in the checkpoint; None in logs of older versions.
        changes: Changed settings, as `key: old -> new`.
    """

    kind: ClassVar[str] = "resumed"
    step: int
    epoch: int
    checkpoint: str
    lr_edits: list[Annotated[list[float], _is_pair]] | None = None
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Monitored(Event):
    """Memory and device readings; unavailable ones are left out."""

    kind: ClassVar[str] = "monitor"
    durable: ClassVar[bool] = False
    readings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Event):
    """The trainer process is alive, paused or not; after some time without one the run counts as lost."""

    kind: ClassVar[str] = "heartbeat"
    durable: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """A warning to the user that does not stop the run."""

    kind: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, kw_only=True)
class Gap(Event):
    """Step arrays were dropped because the disk could not keep up."""

    kind: ClassVar[str] = "gap"
    dropped_events: int


@dataclass(frozen=True, kw_only=True)
class LogFailed(Event):
    """The log could not be appended to. Lives in memory only, so that the live screen shows it."""

    kind: ClassVar[str] = "log_failed"
    error: str


@dataclass(frozen=True, kw_only=True)
class LogRecovered(Event):
    """The log can be appended to again; nothing that was published meanwhile is lost, unless a `Gap` says so.

    Attributes:
        seconds: Seconds during which appending failed.
    """

    kind: ClassVar[str] = "log_recovered"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run ended with an error.

    Attributes:
        checkpoint: The last good checkpoint, empty when there is none.
        resume: The command that resumes from it, empty when there is none.
    """

    kind: ClassVar[str] = "failed"
    error: str
    exit_code: int
    checkpoint: str = ""
    resume: str = ""


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run ended as planned or was stopped and saved.

    Attributes:
        reason: `completed`, `stopped early` (`train.early_stop_epochs`), `stopped`, or the name of a signal.
    """

    kind: ClassVar[str] = "finished"
    reason: str
    step: int
    epoch: Amount
    exit_code: int


BY_ITSELF = ("completed", "stopped early")
"""Reasons of a run that ended without being stopped by a user or signal."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """An event with its place in the log.

    Attributes:
        seq: Sequence number; rises by one from line to line, also across resumes.
        time: Unix seconds.
    """

    seq: int
    time: UnixTime
    event: Event


@functools.cache
def event_kinds() -> dict[str, type[Event]]:
    """Every kind of event by its name in the log."""
    return {cls.kind: cls for cls in Event.__subclasses__()}


def number(value: float | None) -> float:
    """A number from the log, with null read back as NaN."""
    return math.nan if value is None else float(value)
