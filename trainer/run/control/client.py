"""Sends commands to the trainer of a live run over its socket."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import orjson

from trainer.host.private_folder import private_folder
from trainer.run.control.command_json import LONGEST_LINE, encode_command
from trainer.run.control.commands import Command, UndeliverableError
from trainer.run.control.server import _NAME
from trainer.run.folder.lock import is_live, on_this_machine, pid_here, presence, read_owner
from trainer.run.folder.run_dir import RunDir
from trainer.run.status import Presence


class SocketControl:
    """Control port of a run that another process trains. After a resume it connects to the new trainer."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._connection: socket.socket | None = None
        self._refused = ""
        self.refusal = ""
        self.presence = Presence.UNKNOWN
        self.refresh()

    @property
    def hint(self) -> str:
        """Kind of access, for the header."""
        return "attached" if self.can_control else f"read-only: {self._refused}" if self._refused else "read-only"

    @property
    def can_control(self) -> bool:
        """Whether a trainer is listening."""
        return self._connection is not None

    def send(self, command: Command) -> None:
        """Send a command; UndeliverableError when the trainer has ended or does not read."""
        if self._connection is not None:
            try:
                self._connection.sendall(encode_command(command))
            except OSError:
                self._still_connected()  # a trainer that has refused this client has sent the reason
            else:
                return
        raise UndeliverableError(f"{command.name}: {self.refusal}")

    def refresh(self) -> None:
        """Check whether the trainer has ended, or a new one has started."""
        if self._connection is not None and self._still_connected():
            return
        live, owner = is_live(self._run_dir), read_owner(self._run_dir) or {}
        self.presence = presence(self._run_dir)
        if not live:
            self.refusal = f"this run is not active; to resume: {self._run_dir.resume_command()}"
            return
        try:
            self._connection = _connect(owner)
        except OSError as error:
            self.refusal = f"view only: {error}"
            return
        # A client that was refused is likely to be refused again, at once: until then it is not shown as attached.
        if not self._refused or (not select.select([self._connection], [], [], 0.05)[0]):
            self.refusal = self._refused = ""
        else:
            self._still_connected()

    def close(self) -> None:
        """Close the connection."""
        self._disconnect("left")

    def _still_connected(self) -> bool:
        assert self._connection is not None
        try:
            answer = self._connection.recv(4 * LONGEST_LINE)
        except BlockingIOError:
            return True
        except OSError:
            answer = b""
        self._refused = _reason_in(answer)
        self._disconnect(f"refused: {self._refused}" if self._refused else "the training process has ended")
        return False

    def _disconnect(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.refusal = reason


def _connect(owner: dict[str, object]) -> socket.socket:
    """Connect to an owner's socket; OSError with the reason. The facts come from a folder that others may be able to write."""
    if not owner:
        raise ConnectionError("its trainer.json does not name its process")
    if not on_this_machine(owner):
        raise ConnectionError(f"it runs on {owner.get('host', 'another machine')}; control it from there")
    path = Path(str(owner.get("socket", "")))
    if not _NAME.fullmatch(path.name):
        raise ConnectionError("its process accepts no commands")
    if path.parent != private_folder():
        raise ConnectionError("another user owns it")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if pid_here(owner) is None:
            host = owner.get("host", "?")
            raise ConnectionError(f"it runs in another container ({host}); control it from there") from error
        raise ConnectionError(f"its process accepts no commands ({error.strerror})") from error
    return connection


def _reason_in(answer: bytes) -> str:
    """The reason for which a trainer refuses this client; empty when it does not."""
    try:
        return str(orjson.loads(answer.splitlines()[0])["error"])
    except (ValueError, IndexError, KeyError, TypeError):
        return ""
