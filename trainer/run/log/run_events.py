"""Events for what happens to a run: it starts, is paused, edited, resumed, warned about, and ends."""

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
    """Everything is built and the first step is next."""

    kind: ClassVar[str] = "started"
    classes: list[str]
    splits: dict[str, int]  # images in each
    selection_split: HeldOut  # chooses the best checkpoint
    fingerprint: str
    model: Model
    device: dict[str, Any]
    choices: dict[str, Any]  # precision, memory format and others made by timing; a resume reuses them
    epochs: Positive
    steps_per_epoch: Positive
    total_steps: int
    planned_lr: SampledSchedule  # sampled, without edits: steps, counted from 1 as in `steps`, and rates
    versions: dict[str, str]
    skipped_images: int = 0


@dataclass(frozen=True, kw_only=True)
class StateChanged(Event):
    """The state of the run has changed."""

    kind: ClassVar[str] = "state"
    state: Annotated[str, _is_state]  # value of a `RunState`
    detail: str = ""  # current activity, such as "decoding images"
    fraction: float | None = None  # progress of that activity, 0 to 1, if known


@dataclass(frozen=True, kw_only=True)
class Diverged(Event):
    """So many consecutive steps were skipped that the run is held until the user decides."""

    kind: ClassVar[str] = "diverged"
    step: int  # the last skipped one
    in_a_row: int  # consecutive skipped steps
    checkpoint: str  # that a rollback would restore; empty when there is none


@dataclass(frozen=True, kw_only=True)
class StagesFrozen(Event):
    """Other stages of the network are frozen from the next step on."""

    kind: ClassVar[str] = "frozen"
    step: int  # steps done so far
    stages: list[str]  # frozen ones, starting at the image
    trainable: int  # number of trained parameters


@dataclass(frozen=True, kw_only=True)
class LrEdited(Event):
    """The user has scaled the rest of the schedule."""

    kind: ClassVar[str] = "lr_edited"
    step: int  # steps done so far; the factor applies from the next one
    factor: float
    lr: float  # of the next step


@dataclass(frozen=True, kw_only=True)
class SettingsChanged(Event):
    """The plan of the run has changed. `epochs`, `total_steps` and `planned_lr` as in `Started`."""

    kind: ClassVar[str] = "settings"
    step: int  # steps done so far
    changes: list[str]  # as `key: old -> new`
    config: Config  # changed settings only
    epochs: Positive
    total_steps: int
    planned_lr: SampledSchedule


@dataclass(frozen=True, kw_only=True)
class NoteAdded(Event):
    """The user has added a note."""

    kind: ClassVar[str] = "note"
    step: int  # steps done so far
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
    """Training continues from a checkpoint: points after its step belong to an abandoned future."""

    kind: ClassVar[str] = "resumed"
    step: int
    epoch: int
    checkpoint: str
    lr_edits: list[Annotated[list[float], is_pair]] | None = (
        None  # (step, factor), from the checkpoint; None in old logs
    )
    changes: list[str] = field(default_factory=list)  # as `key: old -> new`


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
    """The log can be appended to again; nothing that was published meanwhile is lost, unless a `Gap` says so."""

    kind: ClassVar[str] = "log_recovered"
    seconds: float  # during which appending failed


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run ended with an error."""

    kind: ClassVar[str] = "failed"
    error: str
    exit_code: int
    checkpoint: str = ""  # the last good one; empty when there is none
    resume: str = ""  # the command that resumes from it; empty when there is none


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run ended as planned or was stopped and saved."""

    kind: ClassVar[str] = "finished"
    reason: str  # `completed`, `stopped early` (`train.early_stop_epochs`), `stopped`, or the name of a signal
    step: int
    epoch: Amount
    exit_code: int


NOT_INTERRUPTED = (
    "completed",
    "stopped early",
)  # reasons of a run that ended without being stopped by a user or signal
