"""What happens in a run, as frozen records that become one JSON line each in `events.jsonl`.

`trainer.run.log.codec` writes and reads the lines. Readers ignore fields and kinds that they do not know, so a field may be
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
    """What viewers read of a configuration."""

    data: _Data
    eval: _Eval
    checkpoint: _Checkpoint
    optim: _Optim


class _Model(TypedDict, total=False):
    """What viewers read of a model's description."""

    parameters: int


Config = Annotated[dict[str, dict[str, Any]], _Config]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        kind: The name in the log.
        durable: Whether the writer must keep the event however full its queue is.
        same_length: Names of lists with an entry each for the same things. One that is empty by default may be empty.
    """

    kind: ClassVar[str] = ""
    durable: ClassVar[bool] = True
    same_length: ClassVar[tuple[str, ...]] = ()

    def is_consistent(self) -> bool:
        """Whether the fields, each of which is of its type, agree with each other."""
        return True


@dataclass(frozen=True, kw_only=True)
class Opened(Event):
    """A trainer process has taken the run: its first event, before torch is imported."""

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
        choices: Precision, memory format and what else was decided by timing; a resume reuses them.
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
    """The run is in another state.

    Attributes:
        state: A `trainer.run.status.RunState` value.
        detail: What is being done, such as "decoding images".
        fraction: Progress of that, 0 to 1, where it is known.
    """

    kind: ClassVar[str] = "state"
    state: Annotated[str, _is_state]
    detail: str = ""
    fraction: float | None = None


@dataclass(frozen=True, kw_only=True)
class Steps(Event):
    """Consecutive optimizer steps.

    Attributes:
        first_step: Number of the first one, from 1.
        loss: Mean training loss of each step.
        accuracy: Training top-1 of each step, 0 to 1, on augmented images.
        lr: Learning rate of each step.
        images: Images in these steps.
        seconds: Time these steps took, without pauses, evaluations and saves.
        budget: Seconds since the last start or resume by activity: data, compute, evaluate, save. Empty in most lines: it is told
            every five seconds.
        skipped: Numbers of the steps whose update was left out, since loss or gradient were not finite.
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
    """So many steps in a row were left out that the run is held until somebody decides.

    Attributes:
        step: The last of them.
        in_a_row: How many.
        checkpoint: That a return would go to, empty when there is none.
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
        stages: That are frozen, from the image; empty when everything is trained.
        trainable: Parameters that are trained.
    """

    kind: ClassVar[str] = "frozen"
    step: int
    stages: list[str]
    trainable: int


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """An epoch's last step has ended.

    Attributes:
        epoch: Number, from 1.
        train_loss: Mean over the steps that changed the weights; null where none did.
        train_accuracy: Top-1 over them, likewise.
        seconds: Time of its steps.
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
    """Held-out images were measured.

    Attributes:
        epoch: Epochs trained so far; a fraction in mid-epoch.
        accuracy: Plain top-1, 0 to 1.
        accuracy_tta: Top-1 of the mean logits of image and mirror image, where it was asked for.
        correct: Right answers in each class.
        counts: Images in each class.
        predicted: How often each class was answered.
        confusions: For each class the ten that it was most often taken for: their indices and numbers of images, by turns.
        silent: Share of the channels that were 0 for all images looked at (`layer_stats`), by the convolution that makes them,
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
        """Whether no class has more answers than images, and no image is taken for a class that there is not."""
        wrong = [count - right for count, right in zip(self.counts, self.correct, strict=True)]
        return min(wrong, default=0) >= 0 and all(
            len(taken) % 2 == 0 and sum(taken[1::2]) <= images and max(taken[::2], default=0) < len(wrong)
            for taken, images in zip(self.confusions, wrong, strict=False)
        )


@dataclass(frozen=True, kw_only=True)
class LayersMeasured(Event):
    """Weights at an epoch's end, and the gradients of its last step, layer by layer (`trainer.model.layer_stats`).

    Attributes:
        epoch: Epochs trained so far.
        names: As in the state dict, from the image.
        parameters: Weights of each.
        weight_norms: Euclidean.
        weight_ranges: The bins of a histogram are as wide as each other, from minus this to plus this.
        weights: How many of some thousands of weights lie in each bin.
        gradient_norms: As the optimizer got them; null where a layer is frozen, or one of them is not finite.
        gradient_ranges: As of the weights; null where a layer is frozen.
        gradients: Likewise; empty where a layer is frozen.
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
    """Small pictures to look at are in a file (`trainer.evaluation.picture_sheet`).

    Attributes:
        what: `training`, as the network sees them, or `mistakes`, the most confident ones of an evaluation.
        split: Whose images they are.
        epoch: As in `Evaluated`; of training images the epoch that they belong to, from 1.
        path: Relative to the run directory.
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
    """A checkpoint could not be written; training goes on."""

    kind: ClassVar[str] = "checkpoint_failed"
    step: int
    error: str


@dataclass(frozen=True, kw_only=True)
class LrEdited(Event):
    """The user has scaled the rest of the schedule.

    Attributes:
        step: Steps done so far; the factor applies from the next one.
        lr: The rate of the next step.
    """

    kind: ClassVar[str] = "lr_edited"
    step: int
    factor: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class SettingsChanged(Event):
    """The run goes on by another plan.

    Attributes:
        step: Steps done so far.
        changes: As `key: old -> new`.
        config: What is other than before, by group and key.
        epochs: Of the whole run, as it is planned now; likewise the others, as in `Started`.
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
    """A remark of the user.

    Attributes:
        step: Steps done so far.
    """

    kind: ClassVar[str] = "note"
    step: int
    text: str


@dataclass(frozen=True, kw_only=True)
class LrRangeTested(Event):
    """Rates were tried on a copy of the state.

    Attributes:
        step: Steps done so far.
        lrs: Rising.
        losses: Smoothed loss at each of them.
        suggestion: A rate to train with; null where the loss fell at none.
        reason: Why this one, or why none.
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
    """What the export is doing.

    Attributes:
        stage: Such as "checking on 256 images".
        fraction: 0 to 1.
    """

    kind: ClassVar[str] = "export_progress"
    durable: ClassVar[bool] = False
    stage: str
    fraction: float


@dataclass(frozen=True, kw_only=True)
class Exported(Event):
    """The ONNX file is in place and was proven equal to the model.

    Attributes:
        max_abs_diff: Largest difference of a logit over all compared images.
        images: Compared images.
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
    """No ONNX file was announced; an earlier one is untouched."""

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
    """Training goes on from a checkpoint: points after its step belong to an abandoned future.

    Attributes:
        lr_edits: (step, factor) of every edit that the checkpoint knows; None in logs of before this was told.
        changes: Settings that are other than before, as `key: old -> new`.
    """

    kind: ClassVar[str] = "resumed"
    step: int
    epoch: int
    checkpoint: str
    lr_edits: list[Annotated[list[float], _is_pair]] | None = None
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Monitored(Event):
    """Memory and device readings; absent ones are left out."""

    kind: ClassVar[str] = "monitor"
    durable: ClassVar[bool] = False
    readings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Event):
    """The trainer process is alive, paused or not; without one for a while the run counts as lost."""

    kind: ClassVar[str] = "heartbeat"
    durable: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something that the user should know and that does not stop the run."""

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
        seconds: That it could not.
    """

    kind: ClassVar[str] = "log_recovered"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run ended by an error.

    Attributes:
        checkpoint: The last good checkpoint, empty when there is none.
        resume: The command that goes on from it, empty when there is none.
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
"""Reasons for which a run ends without being asked to."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """An event with its place in the log.

    Attributes:
        seq: Rises by one from line to line, over resumes too.
        time: Unix seconds.
    """

    seq: int
    time: UnixTime
    event: Event


@functools.cache
def event_kinds() -> dict[str, type[Event]]:
    """Every kind by its name in the log."""
    return {cls.kind: cls for cls in Event.__subclasses__()}


def number(value: float | None) -> float:
    """A number of the log, with its null read back as NaN."""
    return math.nan if value is None else float(value)
