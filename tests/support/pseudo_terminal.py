"""A program in a real pseudo-terminal, with the screen that its user would see. For tests and benchmarks."""

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
"""What programs ask a terminal, and what one answers: without an answer some of them wait."""


class PseudoTerminal:
    """Starts a command in a terminal of its own and keeps its screen.

    Attributes:
        pid: Process id of the command.
        raw: Every byte that it wrote.
        status: Its exit code once it has ended (negative for a signal).
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
        """Start.

        Args:
            argv: The command and its arguments.
            columns: Width of the terminal, in cells.
            rows: Height of the terminal, in cells.
            env: Added to the environment.
            cwd: Working folder.
        """
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
            # As a terminal's shell finds them, also where we run under nohup.
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
        """Whether the terminal echoes, waits for whole lines and makes signals of keys."""
        return int(termios.tcgetattr(self._fd)[3]) & (termios.ECHO | termios.ICANON | termios.ISIG)

    def send(self, keys: str) -> None:
        """Type."""
        self.send_bytes(keys.encode())

    def send_bytes(self, data: bytes) -> None:
        """Send what no keyboard can type, too."""
        os.write(self._fd, data)

    def quiet(self, seconds: float = 0.2, timeout: float = 10.0) -> None:
        """Wait until nothing has been written for so long.

        Raises:
            TimeoutError: When the command goes on writing.
        """
        end = time.monotonic() + timeout
        while self.pump(seconds):
            if time.monotonic() > end:
                raise TimeoutError(f"it writes for more than {timeout} s; the screen:\n{self.text}")

    def pump(self, seconds: float) -> bool:
        """Take what the command writes for at most `seconds`; whether anything came."""
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
        # Sequences with a private marker that pyte does not know would be drawn as text; those that a kill has cut confuse it.
        with contextlib.suppress(TypeError, UnboundLocalError):
            self._stream.feed(
                re.sub(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p|\x1b\[[0-9;]*\$?[tp]", b"", undrawn)
            )
        return bool(data)

    def wait_for(self, pattern: str, timeout: float = 60.0) -> float:
        """Wait until the screen shows a pattern.

        Returns:
            Seconds since the start.

        Raises:
            TimeoutError: With the screen.
        """
        end, changed = time.monotonic() + timeout, True
        while time.monotonic() < end:
            # Only a new screen is looked at: to make text of it takes longer than to draw it.
            if changed and re.search(pattern, self.text):
                return time.monotonic() - self.started
            changed = self.pump(0.02)
            if not changed and not self.alive():
                break
        if re.search(pattern, self.text):
            return time.monotonic() - self.started
        raise TimeoutError(f"no {pattern!r} within {timeout} s (exit {self.status}); the screen:\n{self.text}")

    def echo(self, keys: str, pattern: str | None = None, timeout: float = 10.0) -> float:
        """Type and wait for the answer.

        Args:
            keys: To type.
            pattern: That answers; None takes any change of the screen.
            timeout: Seconds.

        Returns:
            Milliseconds from the key to the answer's last byte; this emulator's own time is not in them.
        """
        while self.pump(0.0):
            continue
        before, begun = self.text, time.perf_counter()
        self.send(keys)
        while time.perf_counter() - begun < timeout:
            # Nothing is computed while there is nothing new: it would take the time of the program that is measured.
            if self.pump(0.1) and (re.search(pattern, self.text) if pattern else self.text != before):
                return (self._read_at - begun) * 1e3
        raise TimeoutError(f"no answer to {keys!r} within {timeout} s; the screen:\n{self.text}")

    def bytes_per_s(self, seconds: float) -> float:
        """Watch for a while."""
        before, begun = len(self.raw), time.monotonic()
        while time.monotonic() - begun < seconds:
            self.pump(0.05)
        return (len(self.raw) - before) / (time.monotonic() - begun)

    def drain(self, seconds: float) -> None:
        """Take what the command writes for a while and draw it later: a screen that nobody looks at costs no time here."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                try:
                    self._undrawn += os.read(self._fd, 1 << 16)
                except OSError as error:  # the other end has closed
                    raise EOFError("the program has ended") from error

    def alive(self) -> bool:
        """Whether the command has not ended yet."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def wait_exit(self, timeout: float = 60.0) -> int:
        """Wait for the command's end.

        Returns:
            Its exit code.

        Raises:
            TimeoutError: With the screen.
        """
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
        """End the command and everything that it started."""
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
