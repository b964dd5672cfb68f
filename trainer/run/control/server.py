"""The control socket: other processes of the same user steer a trainer through it.

It lives in a private folder of the user under `/tmp`: network volumes refuse sockets, paths in a run directory may exceed the
107 bytes that a socket's name may have, and XDG_RUNTIME_DIR is deleted at logout. Answers are events in the run's log; the
socket itself only says why a line was refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Protocol

import orjson

from trainer.host.private_folder import private_folder
from trainer.run.control.command_json import LONGEST_LINE, decode_command
from trainer.run.control.commands import Command

MOST_CLIENTS = 32
"""Connections at a time."""

MOST_PER_SECOND = 20
"""Commands that one client may send in a second."""

MOST_WAITING = 64
"""Commands that may wait for the next step before more are refused."""

_NAME = re.compile(r"[0-9a-f]{16}\.sock")
_UNFINISHED = re.compile(r"[0-9a-f]{16}\.new")
_LOOK_S = 5.0
"""Time between two looks at whether the socket still has its name: cleaners of /tmp delete what is old."""

_UNFINISHED_S = 60.0
"""Age above which a socket under its first name belongs to a trainer that died before it listened."""


class CommandSink(Protocol):
    """Where the server's commands go."""

    @property
    def waiting(self) -> int:
        """Commands that were sent and not taken."""

    def send(self, command: Command) -> None:
        """Hand one over without waiting."""


class ControlServer:
    """Listens for commands on a thread of its own. No client can make it wait, or the trainer behind it.

    Attributes:
        path: The socket.
    """

    def __init__(self, commands: CommandSink) -> None:
        """Start to listen.

        Raises:
            OSError: When there can be no socket.
        """
        self._commands = commands
        self._clients: dict[socket.socket, _Client] = {}
        folder = private_folder()
        _remove_abandoned(folder)
        self.path = folder / f"{os.urandom(8).hex()}.sock"
        self._listener = _listen(self.path)
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop to listen and remove the socket. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        looked_s = time.monotonic()
        with self._selector, self._wake, self._waker, contextlib.ExitStack() as last:
            last.callback(lambda: self._listener.close())
            while True:
                if time.monotonic() - looked_s >= _LOOK_S:
                    looked_s = time.monotonic()
                    self._restore_name()
                for key, _ in self._selector.select(_LOOK_S):
                    if key.fileobj is self._wake:
                        for client in list(self._clients):
                            self._drop(client)
                        return
                    if key.fileobj is self._listener:
                        self._accept()
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        self._receive(key.fileobj)

    def _restore_name(self) -> None:
        """Listen under the same name again where the socket's file was deleted; clients that are connected stay."""
        with contextlib.suppress(OSError):  # tried again at the next look
            if self.path.is_socket():
                return
            private_folder()
            fresh = _listen(self.path)
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = fresh
            self._selector.register(fresh, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            time.sleep(0.1)  # no descriptor left for it in this process; it goes on to ask
            return
        connection.setblocking(False)
        if _peer_uid(connection) != os.getuid():
            _refuse(connection, "only the user who trains this run may steer it")
        elif len(self._clients) >= MOST_CLIENTS:
            _refuse(connection, f"too many screens are attached, {MOST_CLIENTS} at most")
        else:
            self._clients[connection] = _Client()
            self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        client = self._clients[connection]
        try:
            data = connection.recv(4 * LONGEST_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            for line in client.lines(data):
                client.count(time.monotonic())
                if not line.strip():
                    continue
                if self._commands.waiting >= MOST_WAITING:
                    raise ValueError("too many commands wait for the next step")
                self._commands.send(decode_command(line))
        except ValueError as error:
            self._drop(connection, str(error))

    def _drop(self, connection: socket.socket, reason: str = "") -> None:
        self._selector.unregister(connection)
        del self._clients[connection]
        if reason:
            _refuse(connection, reason)
        else:
            connection.close()


class _Client:
    """What one client has sent so far."""

    def __init__(self) -> None:
        self._rest = b""
        self._times: deque[float] = deque(maxlen=MOST_PER_SECOND)

    def lines(self, data: bytes) -> list[bytes]:
        """Whole lines, now that `data` has come."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError(f"a command has at most {LONGEST_LINE} bytes")
        return lines

    def count(self, now: float) -> None:
        """Count a line."""
        if len(self._times) == MOST_PER_SECOND and now - self._times[0] < 1.0:
            raise ValueError(f"more than {MOST_PER_SECOND} commands in a second")
        self._times.append(now)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under its name only once it listens: until then another trainer would take it for an abandoned one.
    unfinished = path.with_suffix(".new")
    try:
        listener.setblocking(False)
        listener.bind(str(unfinished))
        listener.listen(MOST_CLIENTS)
        unfinished.rename(path)
    except OSError:
        listener.close()
        unfinished.unlink(missing_ok=True)
        raise
    return listener


def _refuse(connection: socket.socket, reason: str) -> None:
    with connection, contextlib.suppress(OSError):  # one that does not read its answer does without
        connection.send(orjson.dumps({"error": reason}, option=orjson.OPT_APPEND_NEWLINE))


def _peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it; -1 where it does not say."""
    try:
        if sys.platform == "darwin":
            # struct xucred of sys/ucred.h: version, uid, number of groups, 16 groups; LOCAL_PEERCRED of sys/un.h.
            version, uid = struct.unpack_from("=Ii", connection.getsockopt(0, 1, 76))
            return uid if version == 0 else -1
        return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
    except OSError:
        return -1


def _remove_abandoned(folder: Path) -> None:
    """Remove sockets that nobody listens to any more: a killed trainer could not."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # it has its name by now
                if time.time() - path.lstat().st_mtime > _UNFINISHED_S:
                    path.unlink()
        if not _NAME.fullmatch(path.name):
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
