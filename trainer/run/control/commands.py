"""What a user can ask of a running trainer, and the port through which it is asked.

A dashboard sends a command and goes on; the trainer takes it at the next step boundary and answers with an
`Acknowledged` event that carries the command's id.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from trainer.run.log.events import Acknowledged
from trainer.run.status import Presence

HIGHEST_LR = 1000.0
"""No learning rate above it is taken for meant."""

HIGHEST_FACTOR = 1e6
"""Likewise for what a rate is multiplied by."""

NOTE_LENGTH = 200
"""Characters of a user's remark at most."""


class UndeliverableError(Exception):
    """A command found nobody to take it; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Base of all commands.

    Attributes:
        name: The word in acknowledgements.
        command_id: Chosen by the sender.
    """

    name: ClassVar[str]
    command_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


@dataclass(frozen=True, kw_only=True)
class Pause(Command):
    """Hold at the next step boundary."""

    name: ClassVar[str] = "pause"


@dataclass(frozen=True, kw_only=True)
class Unpause(Command):
    """Go on after a pause."""

    name: ClassVar[str] = "unpause"


@dataclass(frozen=True, kw_only=True)
class SaveCheckpoint(Command):
    """Save now.

    Attributes:
        reason: Name of the signal that asked; empty for a user, whose checkpoint rotation leaves alone.
    """

    name: ClassVar[str] = "checkpoint"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure the held-out images now."""

    name: ClassVar[str] = "evaluate"


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Save this step and export it to ONNX."""

    name: ClassVar[str] = "export"


@dataclass(frozen=True, kw_only=True)
class GoBack(Command):
    """After steps that were not finite: take up the last checkpoint before them, at half the rate."""

    name: ClassVar[str] = "go back"


@dataclass(frozen=True, kw_only=True)
class Unfreeze(Command):
    """Train one more stage of the network, the frozen one that is nearest to the classifier."""

    name: ClassVar[str] = "unfreeze"


@dataclass(frozen=True, kw_only=True)
class Freeze(Command):
    """Train one stage less of the network: freeze the trained one that is nearest to the image."""

    name: ClassVar[str] = "freeze"


@dataclass(frozen=True, kw_only=True)
class FindLr(Command):
    """Try rates on a copy of the state, and say which one looks best; a second one while that is done stops it."""

    name: ClassVar[str] = "find lr"


@dataclass(frozen=True, kw_only=True)
class SetLr(Command):
    """Use this rate at the next step, and scale the rest of the schedule by the same factor.

    Attributes:
        lr: The new rate, above 0.
    """

    name: ClassVar[str] = "set lr"
    lr: float


@dataclass(frozen=True, kw_only=True)
class ScaleLr(Command):
    """Scale the rate of the next step and the rest of the schedule; exact, where the step before is all that a sender knows of.

    Attributes:
        factor: Above 0.
    """

    name: ClassVar[str] = "scale lr"
    factor: float


@dataclass(frozen=True, kw_only=True)
class AddNote(Command):
    """Keep a remark of the user with the run.

    Attributes:
        text: One line of at most `NOTE_LENGTH` characters.
    """

    name: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, kw_only=True)
class ChangeSettings(Command):
    """Go on by another plan: how long, how often the run is measured and saved.

    Attributes:
        settings: By dotted key, of `trainer.config.schema.CHANGEABLE`.
    """

    name: ClassVar[str] = "change settings"
    settings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Stop(Command):
    """Save and end.

    Attributes:
        reason: `stopped`, or the name of the signal that asked.
        exit_code: What the process shall exit with.
    """

    name: ClassVar[str] = "stop"
    reason: str = "stopped"
    exit_code: int = 0


def answer_to(command: Command, refusal: str = "") -> Acknowledged:
    """The event that answers a command.

    Args:
        command: That was taken.
        refusal: Why it is not carried out; empty when it is.
    """
    return Acknowledged(command_id=command.command_id, command=command.name, ok=not refusal, message=refusal)


class ControlPort(Protocol):
    """Where commands go: the queue of this process, a socket, or nowhere."""

    @property
    def hint(self) -> str:
        """A word about control for the header: `attached`, `read-only`, or empty where all is in this process."""

    @property
    def can_control(self) -> bool:
        """Whether anyone takes commands."""

    @property
    def refusal(self) -> str:
        """Why nobody does; empty when `can_control`."""

    @property
    def presence(self) -> Presence:
        """Whether the run has a trainer."""

    def send(self, command: Command) -> None:
        """Hand a command over without waiting for it.

        Raises:
            UndeliverableError: When nobody takes it.
        """

    def refresh(self) -> None:
        """Look again whether anyone takes commands. Cheap enough for once a second."""

    def close(self) -> None:
        """Keep no connection any longer."""


class CommandQueue:
    """The port of a trainer in the same process. `send` may be called from any thread and from signal handlers."""

    hint = ""
    can_control = True
    refusal = ""
    presence = Presence.THERE

    def __init__(self) -> None:
        # SimpleQueue.put is reentrant, so that a signal handler may interrupt another put.
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def send(self, command: Command) -> None:
        """Hand a command over."""
        self._queue.put(command)

    def refresh(self) -> None:
        """Nothing to do: the trainer lives in this process."""

    def close(self) -> None:
        """Nothing to do, likewise."""

    @property
    def waiting(self) -> int:
        """How many commands nobody has taken yet."""
        return self._queue.qsize()

    def take(self, timeout: float | None = None) -> Command | None:
        """The next command; None when there is none.

        Args:
            timeout: Seconds to wait for one; None does not wait.
        """
        try:
            return self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
        except queue.Empty:
            return None


@dataclass
class NoControl:
    """The port of a run that is only looked at.

    Attributes:
        look: Finds out why nobody takes commands here, and whether there is a trainer.
    """

    look: Callable[[], tuple[str, Presence]]
    hint: str = "read-only"
    can_control: bool = False
    refusal: str = field(init=False)
    presence: Presence = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def send(self, command: Command) -> None:
        """Refuse: a caller looks at `can_control` first."""
        raise UndeliverableError(f"{command.name}: {self.refusal}")

    def refresh(self) -> None:
        """Look again."""
        self.refusal, self.presence = self.look()

    def close(self) -> None:
        """Nothing to do: there is no connection."""
