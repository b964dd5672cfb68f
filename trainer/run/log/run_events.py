"""Events for what happens to a run: it starts, is paused, edited, resumed, warned about, and ends."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from trainer.run.log.event import LOG_VERSION, Config, Event, HeldOut, Model, SampledSchedule, is_pair
from trainer.run.log.log_types import Amount, Positive
from trainer.run.status import RunState


def _is_state(name: str) -> bool:
    return name in {state.value for state in RunState}


class Opened(Event, kind="opened"):
    """A trainer process has taken the run. Its first event, before torch is imported."""

    run: str
    directory: str
    pid: int
    host: str
    resume: bool
    config: Config
    log_version: int = LOG_VERSION


class Started(Event, kind="started"):
    """Everything is built and the first step is next."""

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


class StateChanged(Event, kind="state"):
    """The state of the run has changed."""

    state: Annotated[str, _is_state]  # value of a `RunState`
    detail: str = ""  # current activity, such as "decoding images"
    fraction: float | None = None  # progress of that activity, 0 to 1, if known


class Diverged(Event, kind="diverged"):
    """So many consecutive steps were skipped that the run waits until the user decides."""

    step: int  # the last skipped one
    in_a_row: int  # consecutive skipped steps
    checkpoint: str  # that a rollback would restore; empty when there is none


class StagesFrozen(Event, kind="frozen"):
    """Other stages of the network are frozen from the next step on."""

    step: int  # steps done so far
    stages: list[str]  # frozen ones, starting at the image
    trainable: int  # number of trained parameters


class LrEdited(Event, kind="lr_edited"):
    """The user has scaled the rest of the schedule."""

    step: int  # steps done so far; the factor applies from the next one
    factor: float
    lr: float  # of the next step


class SettingsChanged(Event, kind="settings"):
    """The plan of the run has changed. `epochs`, `total_steps` and `planned_lr` as in `Started`."""

    step: int  # steps done so far
    changes: list[str]  # as `key: old -> new`
    config: Config  # changed settings only
    epochs: Positive
    total_steps: int
    planned_lr: SampledSchedule


class NoteAdded(Event, kind="note"):
    """The user has added a note."""

    step: int  # steps done so far
    text: str


class Acknowledged(Event, kind="ack"):
    """A command has taken effect, or was refused with a reason."""

    command_id: str
    command: str
    ok: bool
    message: str = ""


class Resumed(Event, kind="resumed"):
    """Training continues from a checkpoint: points after its step belong to an abandoned future."""

    step: int
    epoch: int
    checkpoint: str
    lr_edits: list[Annotated[list[float], is_pair]] | None = None  # steps and factors; None in old logs
    changes: list[str] = field(default_factory=list)  # as `key: old -> new`


class Monitored(Event, kind="monitor", durable=False):
    """Memory and device readings; unavailable ones are left out."""

    readings: dict[str, float]


class Heartbeat(Event, kind="heartbeat", durable=False):
    """The trainer process is alive, paused or not; after some time without one the run counts as lost."""


class Warned(Event, kind="warning"):
    """A warning to the user that does not stop the run."""

    message: str


class Gap(Event, kind="gap"):
    """Step arrays were dropped because the disk could not keep up."""

    dropped_events: int


class LogFailed(Event, kind="log_failed"):
    """The log could not be appended to. Lives in memory only, so that the live screen shows it."""

    error: str


class LogRecovered(Event, kind="log_recovered"):
    """The log can be appended to again; nothing that was published meanwhile is lost, unless a `Gap` says so."""

    seconds: float  # during which appending failed


class Failed(Event, kind="failed"):
    """The run ended with an error."""

    error: str
    exit_code: int
    checkpoint: str = ""  # the last good one; empty when there is none
    resume: str = ""  # the command that resumes from it; empty when there is none


class Finished(Event, kind="finished"):
    """The run ended as planned or was stopped and saved."""

    reason: str  # `completed`, `stopped early` (`train.early_stop_epochs`), `stopped`, or the name of a signal
    step: int
    epoch: Amount
    exit_code: int


NOT_INTERRUPTED = ("completed", "stopped early")  # reasons of a run that no user and no signal has stopped
