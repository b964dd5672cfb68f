"""What happens to a run: it starts, is paused, edited, resumed, warned about, and ends. Results are in `result_events`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from trainer.run.log.event import LOG_VERSION, Config, Event, HeldOut, Model, SampledSchedule, is_pair
from trainer.run.log.log_types import Amount, Positive
from trainer.run.status import RunState


def _is_state(name: str) -> bool:
    return name in {state.value for state in RunState}


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
    model: Annotated[dict[str, Any], Model]
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
    lr_edits: list[Annotated[list[float], is_pair]] | None = None
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
