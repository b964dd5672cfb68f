"""Commands that a user can send to a running trainer, and the port that carries them.

A dashboard sends a command and continues; the trainer takes it at the next step boundary and answers with an
`Acknowledged` event that carries the command's id.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from trainer.run.log.event import Message
from trainer.run.log.run_events import Acknowledged
from trainer.run.status import Presence

HIGHEST_LR = 1000.0  # higher rates are rejected as typos
HIGHEST_FACTOR = 1e6  # higher factors of the learning rate are rejected as typos
NOTE_LENGTH = 200  # characters


class UndeliverableError(Exception):
    """A command could not be delivered; the text has the reason."""


class Command(Message):
    """Base of all commands."""

    name: ClassVar[str]  # in acknowledgements
    command_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])  # chosen by the sender

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        cls.name = name


class Pause(Command, name="pause"):
    """Hold at the next step boundary."""


class Unpause(Command, name="unpause"):
    """Continue after a pause."""


class SaveCheckpoint(Command, name="checkpoint"):
    """Save a checkpoint now. One that a user requests is exempt from rotation."""

    reason: str = ""  # name of the signal that requested it; empty for a user


class Evaluate(Command, name="evaluate"):
    """Evaluate the held-out images now."""


class Export(Command, name="export"):
    """Save this step and export it to ONNX."""


class GoBack(Command, name="go back"):
    """Return to the last checkpoint before the non-finite steps, at half the learning rate."""


class Unfreeze(Command, name="unfreeze"):
    """Unfreeze one more stage of the network: the frozen one nearest to the classifier."""


class Freeze(Command, name="freeze"):
    """Freeze one more stage of the network: the trained one nearest to the image."""


class FindLr(Command, name="find lr"):
    """Try learning rates on a copy of the state and suggest one; a second command meanwhile stops it."""


class SetLr(Command, name="set lr"):
    """Use this rate at the next step, and scale the rest of the schedule by the same factor."""

    lr: float  # above 0


class ScaleLr(Command, name="scale lr"):
    """Scale the next step's rate and the rest of the schedule; exact even if the sender only knows an older rate."""

    factor: float  # above 0


class AddNote(Command, name="note"):
    """Add a note of the user to the run."""

    text: str  # one line of at most `NOTE_LENGTH` characters


class ChangeSettings(Command, name="change settings"):
    """Continue by another plan: number of epochs, intervals of evaluations and saves."""

    settings: dict[str, float]  # by dotted key, of `trainer.config.schema.CHANGEABLE`


class Stop(Command, name="stop"):
    """Save and end the run."""

    reason: str = "stopped"  # or the name of the signal that requested it
    exit_code: int = 0


def acknowledgement(command: Command, refusal: str = "") -> Acknowledged:
    """The event that answers a command; `refusal` is empty when it is carried out."""
    return Acknowledged(command_id=command.command_id, command=command.name, ok=not refusal, message=refusal)


class ControlPort(Protocol):
    """Destination of commands: the queue of this process, a socket, or none."""

    @property
    def hint(self) -> str:
        """Kind of access, for the header: `attached`, `read-only`, or empty for a trainer in this process."""

    @property
    def can_control(self) -> bool:
        """Whether a trainer takes commands here."""

    @property
    def refusal(self) -> str:
        """Reason why no trainer takes commands here; empty when `can_control`."""

    @property
    def presence(self) -> Presence:
        """Whether the run has a trainer."""

    def send(self, command: Command) -> None:
        """Pass a command on without waiting for it; UndeliverableError when no trainer takes it."""

    def refresh(self) -> None:
        """Check again whether a trainer takes commands. Cheap enough for once a second."""
        return

    def close(self) -> None:
        """Close the connection, if there is one."""
        return


class CommandQueue(ControlPort):
    """Control port of a trainer in the same process. `send` may be called from any thread and from signal handlers."""

    hint = ""
    can_control = True
    refusal = ""
    presence = Presence.THERE

    def __init__(self) -> None:
        # SimpleQueue.put is reentrant, so that a signal handler may interrupt another put.
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def send(self, command: Command) -> None:
        """Queue a command."""
        self._queue.put(command)

    @property
    def waiting(self) -> int:
        """Number of commands not taken yet."""
        return self._queue.qsize()

    def take(self, timeout: float | None = None) -> Command | None:
        """The next command, after at most `timeout` seconds (None: without waiting); None when there is none."""
        try:
            return self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
        except queue.Empty:
            return None


@dataclass
class NoControl:
    """Control port of a run that is only viewed."""

    look: Callable[[], tuple[str, Presence]]  # reason for no control, and presence of a trainer
    hint: str = "read-only"
    can_control: bool = False
    refusal: str = field(init=False)
    presence: Presence = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def send(self, command: Command) -> None:
        """Refuse the command: callers check `can_control` first."""
        raise UndeliverableError(f"{command.name}: {self.refusal}")

    def refresh(self) -> None:
        """Check again for a trainer."""
        self.refusal, self.presence = self.look()

    def close(self) -> None:
        """Do nothing: there is no connection."""
