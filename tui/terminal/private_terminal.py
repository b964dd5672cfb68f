"""Private access to the terminal: the dashboard draws on a private copy, and the output of libraries goes to a file.

Textual draws on `sys.__stderr__` and reads from `sys.__stdin__`; native code writes to the descriptors 1 and 2. Therefore the
terminal is moved to new descriptors, and 1 and 2 are pointed at the log, before an application is made or PyTorch imported.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from tui.terminal.terminal_mark import TerminalMark, in_background, restore_after_a_kill
from tui.terminal.terminal_modes import RESTORED

_STOPPED_S = 0.05  # a stop signal that returns sooner did not stop us: a shell could not have continued us by then


def is_terminal() -> bool:
    """Whether standard input and output are terminals, and the terminal can be drawn on."""
    return os.isatty(0) and os.isatty(1) and os.environ.get("TERM", "") not in ("", "dumb")


def read_key() -> str:
    """Wait for one key, without `enter`; empty at the end of the input. Keys typed before are dropped."""
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)  # ctrl+c stays a signal
        return os.read(0, 1).decode(errors="replace")
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def wait_for_foreground() -> None:
    """After a start with `&`, stop until the shell gives us the terminal (`fg`); ConfigError if no shell is there to do so."""
    while in_background(0):
        begun = time.monotonic()
        os.kill(0, signal.SIGTTIN)  # the shell reports the whole job as stopped, for input from the terminal
        if in_background(0) and time.monotonic() - begun < _STOPPED_S:
            raise ConfigError(
                "the dashboard needs the terminal, which another program has: start it in the foreground; or train with "
                "--detach, and attach with: r18-tui attach"
            )


def is_hung_up(fd: int) -> bool:
    """Whether the terminal, or the other end of the connection, behind a descriptor is gone."""
    poll = select.poll()
    poll.register(fd, select.POLLHUP | select.POLLERR)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def terminal_size(fd: int) -> tuple[int, int] | None:
    """Columns and rows of a terminal; None if it does not report them, or is gone."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return (columns, rows) if columns and rows else None


class PrivateTerminal:
    """Takes the terminal over and gives it back."""

    def __init__(self, log: Path) -> None:
        """Point 0, 1 and 2 away from the terminal; everything printed from now on is appended to `log`."""
        self._mark = TerminalMark(0)
        self.input_fd = os.dup(0)
        self._output_fd = os.dup(1)
        self._streams = (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        null_fd = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null_fd, 0)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.close(log_fd)
        os.close(null_fd)
        # COLUMNS and LINES would freeze the size that they had in the shell.
        os.environ.pop("COLUMNS", None)
        os.environ.pop("LINES", None)
        screen: Any = _Screen(open(self._output_fd, "wb", closefd=False), encoding="utf-8", errors="replace")  # noqa: SIM115
        keys: Any = open(self.input_fd, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        self._replace_originals(keys, screen, screen)

    def restore(self) -> None:
        """Point 0, 1 and 2 at the terminal again."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(self.input_fd, 0)
        os.dup2(self._output_fd, 1)
        os.dup2(self._output_fd, 2)
        sys.stdin, sys.stdout, sys.stderr = self._streams[:3]
        self._replace_originals(*self._streams[3:])
        self._mark.remove()

    def release(self) -> None:
        """Leave the terminal; 0, 1 and 2 stay where they are. For a run that continues without it.

        The descriptors lead to nothing from now on and stay open: the rest of the screen's buffer will be written to them at some
        time, and must not end up in a file that was given the same number.
        """
        self._replace_originals(*self._streams[3:])
        self._mark.remove()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self.input_fd)
        os.dup2(null, self._output_fd)
        os.close(null)

    @staticmethod
    def _replace_originals(stdin: Any, stdout: Any, stderr: Any) -> None:
        """Set the terminal's streams in `sys`: Textual's driver reads these three names, and takes no argument for them."""
        for name, stream in (("__stdin__", stdin), ("__stdout__", stdout), ("__stderr__", stderr)):
            setattr(sys, name, stream)


class _Screen(io.TextIOWrapper):
    """Drops what is drawn once the terminal is gone: an error would end Textual's writer thread, and callers wait for ever."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def terminal_guard(fd: int = 0) -> Callable[[], None]:
    """Save the terminal's settings; the result restores them and switches off every mode that a dead process left on."""
    try:
        before = termios.tcgetattr(fd)
    except (termios.error, OSError):
        return lambda: None

    def restore() -> None:
        if restore_after_a_kill(fd):
            return
        with contextlib.suppress(termios.error, OSError):  # the terminal itself may be gone
            os.write(1, RESTORED.encode())
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    return restore
