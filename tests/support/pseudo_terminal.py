"""A program in a real pseudo-terminal, with the screen that its user would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import psutil
import pyte

_QUERIES = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;22c"}
"""Queries that programs send to a terminal, with its answers, for which some of them wait."""


class PseudoTerminal:
    """Starts a command in a terminal of its own and keeps its screen.

    Attributes:
        pid: Process id of the command.
        raw: Every byte that it wrote.
        status: Its exit code, negative for a signal; None while it runs.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        columns: int = 120,
        rows: int = 40,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        """Start the command; `env` is added to the environment."""
        self.raw = bytearray()
        self.status: int | None = None
        self._read_at = 0.0
        self._undrawn = bytearray()
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
        self.started = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            # Under nohup these are ignored; a terminal's shell finds them at their defaults.
            for number in (signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if cwd:
                os.chdir(cwd)
            os.execvpe(argv[0], list(argv), environment)  # noqa: S606 - the command under test
        self.resize(columns, rows)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def text(self) -> str:
        """The screen's lines, without trailing blanks."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a window manager would."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def modes(self) -> int:
        """Mode flags of the terminal: echo, whole lines, and signals from keys."""
        return int(termios.tcgetattr(self._fd)[3]) & (termios.ECHO | termios.ICANON | termios.ISIG)

    def send(self, keys: str) -> None:
        """Type keys."""
        self.send_bytes(keys.encode())

    def send_bytes(self, data: bytes) -> None:
        """Send bytes, also such as no keyboard can type."""
        os.write(self._fd, data)

    def quiet(self, seconds: float = 0.2, timeout: float = 10.0) -> None:
        """Wait until nothing has been written for `seconds`; TimeoutError when the command keeps writing."""
        end = time.monotonic() + timeout
        while self.pump(seconds):
            if time.monotonic() > end:
                raise TimeoutError(f"still writing after {timeout} s; the screen:\n{self.text}")

    def pump(self, seconds: float) -> bool:
        """Read output of the command, waiting at most `seconds`; True if there was any."""
        if self._fd < 0:
            time.sleep(seconds)
            return False
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # the other end has closed
            return False
        self._read_at = time.perf_counter()
        self.raw += data
        for query, answer in _QUERIES.items():
            if query in data:
                os.write(self._fd, answer)
        undrawn, self._undrawn = bytes(self._undrawn) + data, bytearray()
        # pyte draws sequences with unknown private markers as text, and raises on those that a kill has cut.
        with contextlib.suppress(TypeError, UnboundLocalError):
            self._stream.feed(
                re.sub(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p|\x1b\[[0-9;]*\$?[tp]", b"", undrawn)
            )
        return bool(data)

    def wait_for(self, pattern: str, timeout: float = 60.0) -> float:
        """Wait until the screen shows a pattern; returns seconds since the start, or raises TimeoutError with the screen."""
        end, changed = time.monotonic() + timeout, True
        while time.monotonic() < end:
            # Searched only when it has changed: making text of the screen takes longer than drawing it.
            if changed and re.search(pattern, self.text):
                return time.monotonic() - self.started
            changed = self.pump(0.02)
            if not changed and not self.alive():
                break
        if re.search(pattern, self.text):
            return time.monotonic() - self.started
        raise TimeoutError(f"no {pattern!r} within {timeout} s (exit {self.status}); the screen:\n{self.text}")

    def echo(self, keys: str, pattern: str | None = None, timeout: float = 10.0) -> float:
        """Type and wait until the screen shows a pattern, or changes at all when that is None.

        Returns:
            Milliseconds from the key to the answer's last byte, without this emulator's own time.
        """
        while self.pump(0.0):
            continue
        before, begun = self.text, time.perf_counter()
        self.send(keys)
        while time.perf_counter() - begun < timeout:
            # Computes only when there is output: it would take time from the program that is measured.
            if self.pump(0.1) and (re.search(pattern, self.text) if pattern else self.text != before):
                return (self._read_at - begun) * 1e3
        raise TimeoutError(f"no answer to {keys!r} within {timeout} s; the screen:\n{self.text}")

    def bytes_per_s(self, seconds: float) -> float:
        """Output rate, measured for so many seconds."""
        before, begun = len(self.raw), time.monotonic()
        while time.monotonic() - begun < seconds:
            self.pump(0.05)
        return (len(self.raw) - before) / (time.monotonic() - begun)

    def drain(self, seconds: float) -> None:
        """Read output for `seconds` and draw it at the next `pump`, so that drawing takes no time meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                try:
                    self._undrawn += os.read(self._fd, 1 << 16)
                except OSError as error:  # the other end has closed
                    raise EOFError("the program has ended") from error

    def alive(self) -> bool:
        """Whether the command still runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def wait_exit(self, timeout: float = 60.0) -> int:
        """Wait for the command's end; returns its exit code, or raises TimeoutError with the screen."""
        end = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > end:
                raise TimeoutError(f"still running after {timeout} s; the screen:\n{self.text}")
            self.pump(0.05)
        while self.pump(0.05):
            continue
        assert self.status is not None
        return self.status

    def hang_up(self) -> None:
        """Close the terminal, as a dropped connection does."""
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """Kill the command and everything that it started."""
        try:
            processes = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            processes = []
        for process in processes if self.alive() else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if self.alive():
            os.waitpid(self.pid, 0)
            self.status = -9
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
