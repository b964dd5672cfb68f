"""Runs the program in a session of its own while the launcher stays the shell's job.

The child calls `setsid` before anything else, so that a hang-up of the terminal reaches neither it nor the data workers
that it starts. The launcher finds out what is asked for while the child imports the dashboard, each on a core of its own;
then it forwards signals, hands the exit code over, and restores the terminal if the child dies. The fork comes before any
heavy import, which it would copy.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType

from trainer.errors import EXIT_SIGINT
from tui.terminal import terminal_guard

FORWARDED = (signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCONT)


class LauncherLink:
    """The child's end of a pipe whose other end lives as long as the launcher."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def receive(self) -> bytes | None:
        """Wait for the line that says what to do; None when the launcher has died before."""
        received = b""
        while not received.endswith(b"\n"):
            part = os.read(self._fd, 65536)
            if not part:
                return None
            received += part
        return received[:-1]

    @property
    def launcher_gone(self) -> bool:
        """Whether the launcher has died; that counts as a hang-up."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLHUP)
        return bool(poll.poll(0))


def run_in_own_session(order: Callable[[], bytes], main: Callable[[LauncherLink], int]) -> int:
    """Run `main` in a child process with a session of its own.

    Args:
        order: Called here, beside `main`: the line that `main` receives from its link. When it raises, the child is ended
            and the exception goes on.
        main: Called in the child; its result is the exit code. It must hold nothing until it has received the line.

    Returns:
        The child's exit code; 128 and the signal's number when a signal ended it.
    """
    restore_terminal = terminal_guard()
    read_fd, write_fd = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        os.close(write_fd)
        _child(main, LauncherLink(read_fd))
    os.close(read_fd)
    try:
        line = order()
        _forward_to(pid)
        _write(write_fd, line + b"\n")
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # so that nobody waits for an import that is of no use
        os.waitpid(pid, 0)
        os.close(write_fd)
        raise
    _, status = os.waitpid(pid, 0)
    os.close(write_fd)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        restore_terminal()
        return 128 - code
    return code


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BrokenPipeError:
            return  # the child has died already; its exit code says how


def _child(main: Callable[[LauncherLink], int], link: LauncherLink) -> None:
    """Never returns: the launcher's stack above this frame belongs to the launcher."""
    code = 1
    try:
        os.setsid()
        code = main(link)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        code = EXIT_SIGINT  # before the program could handle it
    except BaseException:  # noqa: BLE001 - shown, and the exit code says so
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue  # whoever read it has gone
        os._exit(code)


def _forward_to(pid: int) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it has just ended; waitpid says how

    for number in FORWARDED:
        signal.signal(number, forward)
