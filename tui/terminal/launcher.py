"""Runs the program in a session of its own while the launcher stays the shell's job.

The child calls `setsid` before anything else, so that a hang-up of the terminal reaches neither it nor the data workers
that it starts. The launcher determines the request while the child imports the dashboard, each on its own core; then it
forwards signals, passes on the exit code, and restores the terminal if the child dies. A child that continues without the
terminal reports it, and the launcher exits, except in a container that would end with it. The fork comes before any heavy
import, which it would copy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

from trainer.errors import EXIT_OK, EXIT_SIGINT
from trainer.host.stop_signals import WARNINGS, ignored_from_the_start
from tui.terminal.container import is_main_process
from tui.terminal.private_terminal import is_hung_up, terminal_guard

_CONTAINER_NOTE = (
    b"this is the container's main process and stays until the run has ended; leave it with ctrl+p ctrl+q, and come back from "
    b"outside with: docker exec -it CONTAINER r18-tui attach\n"
)

FORWARDED = (
    signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCONT, *WARNINGS.values(),
)  # fmt: skip


class LauncherLink:
    """The child's end of a connection whose other end lives as long as the launcher."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self) -> bytes | None:
        """Wait for the line with the request; None if the launcher has died before."""
        with self._connection.makefile("rb") as stream:
            line = stream.readline()
        return line[:-1] if line.endswith(b"\n") else None

    @property
    def launcher_gone(self) -> bool:
        """Whether the launcher has died; that counts as a hang-up."""
        return is_hung_up(self._connection.fileno())

    def farewell(self, text: str) -> None:
        """Continue alone: the launcher prints `text` and exits with success, and the shell gets its terminal back."""
        _send(self._connection, text.encode())
        self._connection.close()


def run_in_own_session(order: Callable[[], bytes], main: Callable[[LauncherLink], int]) -> int:
    """Run `main` in a child process with a session of its own.

    `order` is called here, in parallel, and returns the line that `main` receives from its link; when it raises, the child is
    ended and the exception propagates. `main` must hold no resource before it has received the line. Returns the child's exit
    code; 128 plus the signal's number if a signal ended it; 0 if it continues without the terminal.
    """
    restore_terminal = terminal_guard()
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(main, LauncherLink(theirs))
    theirs.close()
    with ours:
        try:
            line = order()
            _forward_to(pid)
            _send(ours, line + b"\n")
        except BaseException:
            os.kill(pid, signal.SIGKILL)  # so that nothing waits for an import that is of no use
            os.waitpid(pid, 0)
            raise
        farewell = b""
        with contextlib.suppress(ConnectionResetError):
            for part in iter(lambda: ours.recv(65536), b""):
                farewell += part
    if farewell:
        _print(farewell)
        if not is_main_process():
            return EXIT_OK
        _print(_CONTAINER_NOTE)
    code = _wait_for(pid)
    if code < 0:
        restore_terminal()
        return 128 - code
    return code


def _print(text: bytes) -> None:
    with contextlib.suppress(OSError):  # the terminal may have gone, which is why the child sent its farewell
        os.write(1, text)


def _wait_for(pid: int) -> int:
    """Wait for the child; other processes that became children of a container's first process are only reaped."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the exit code of a child shows how it died
        connection.sendall(data)


def _child(main: Callable[[LauncherLink], int], link: LauncherLink) -> None:
    """Run `main` and exit. Never returns: the launcher's stack above this frame belongs to the launcher."""
    code = 1
    try:
        os.setsid()
        code = main(link)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        code = EXIT_SIGINT  # before the program could handle it
    except BaseException:  # noqa: BLE001 - printed, and reported by the exit code
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its reader may have gone
                stream.flush()
        os._exit(code)


def _forward_to(pid: int) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have just ended; waitpid reports how
            os.kill(pid, number)

    for number in FORWARDED:
        if not ignored_from_the_start(number):
            signal.signal(number, forward)
    # The child is in its own session, where ctrl+z does not stop it: a shell that took the terminal back would share it
    # with a dashboard. Detaching replaces it.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
