"""Control socket through which other processes of the same user steer a trainer.

It lies in a private folder of the user under `/tmp`: network volumes refuse sockets, paths in a run directory may
exceed the 107 bytes of a socket's name, and XDG_RUNTIME_DIR is deleted at logout. Answers are events in the run's log;
the socket itself returns only the reason when a line is refused.
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

import orjson

from trainer.host.private_folder import private_folder
from trainer.run.control.command_json import LONGEST_LINE, decode_command
from trainer.run.control.commands import CommandQueue

MOST_CLIENTS = 32  # simultaneous connections
MOST_PER_SECOND = 20  # commands of one client
MOST_WAITING = 64  # commands for the next step; more are refused
_NAME = re.compile(r"[0-9a-f]{16}\.sock")
_UNFINISHED = re.compile(r"[0-9a-f]{16}\.new")
_LOOK_S = 5.0  # between checks of the socket's file: cleaners of /tmp delete old files
_UNFINISHED_S = 60.0  # age from which a socket under its first name belongs to a trainer that died before it listened


class ControlServer:
    """Listens for commands on a separate thread. No client can block it, or the trainer behind it."""

    def __init__(self, commands: CommandQueue) -> None:
        """Start listening; OSError when the socket cannot be created."""
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
        """Stop listening and remove the socket. Safe to call twice."""
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
        """Listen under the same name again if the socket's file was deleted; connected clients stay."""
        with contextlib.suppress(OSError):  # tried again at the next check
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
            time.sleep(0.1)  # the process has no free descriptor; the client keeps waiting for one
            return
        connection.setblocking(False)
        if _peer_uid(connection) != os.getuid():
            _refuse(connection, "only the owner of this run can control it")
        elif len(self._clients) >= MOST_CLIENTS:
            _refuse(connection, f"too many terminals are attached; the limit is {MOST_CLIENTS}")
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
                    raise ValueError("too many commands are waiting for the next step")
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
    """Received data of one client."""

    def __init__(self) -> None:
        self._rest = b""
        self._times: deque[float] = deque(maxlen=MOST_PER_SECOND)

    def lines(self, data: bytes) -> list[bytes]:
        """Add received data; returns the whole lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError(f"a command has at most {LONGEST_LINE} bytes")
        return lines

    def count(self, now: float) -> None:
        """Count a line against the client's rate limit."""
        if len(self._times) == MOST_PER_SECOND and now - self._times[0] < 1.0:
            raise ValueError(f"more than {MOST_PER_SECOND} commands per second")
        self._times.append(now)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # It gets its name only once it listens: until then another trainer would take it for an abandoned one.
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
    with connection, contextlib.suppress(OSError):  # a client that does not read the answer does not get one
        connection.send(orjson.dumps({"error": reason}, option=orjson.OPT_APPEND_NEWLINE))


def _peer_uid(connection: socket.socket) -> int:
    """User id of the other end, as reported by the kernel; -1 where it is unavailable."""
    try:
        if sys.platform == "darwin":
            # struct xucred of sys/ucred.h: version, uid, number of groups, 16 groups; LOCAL_PEERCRED of sys/un.h.
            version, uid = struct.unpack_from("=Ii", connection.getsockopt(0, 1, 76))
            return uid if version == 0 else -1
        return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
    except OSError:
        return -1


def _remove_abandoned(folder: Path) -> None:
    """Remove sockets on which no process listens: a killed trainer leaves its own behind."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # it has been given its name by now
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
