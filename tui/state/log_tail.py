"""Reads the end of a run's `log.txt`, which holds everything that libraries print, on a separate thread."""

from __future__ import annotations

import re
import threading
from collections import deque

from trainer.run.folder.run_dir import RunDir

_EVERY_S = 1.0
_TAIL_BYTES = 256 * 1024  # maximum number of bytes read at the beginning and between two polls
LINES_KEPT = 2000

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


class LogReader:
    """The last lines of a growing file. The attributes are replaced as a whole and may be read by any thread."""

    def __init__(self, run_dir: RunDir) -> None:
        self.lines: tuple[str, ...] = ()  # last lines without their ends and colours, oldest first
        self.added = 0  # lines since the first poll, including those that are not kept any more
        self._run_dir = run_dir
        self._kept: deque[str] = deque(maxlen=LINES_KEPT)
        self._offset: int | None = None
        self._rest = b""
        self._closed = threading.Event()
        # A daemon: a network volume that does not answer must not keep the program from ending.
        self._thread = threading.Thread(target=self._follow, name="log-reader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def look(self) -> None:
        """Read new lines; the thread does it every second."""
        try:
            with self._run_dir.log.open("rb") as file:
                size = file.seek(0, 2)
                start = max(min(self._offset or 0, size), size - _TAIL_BYTES)
                file.seek(start)
                data = file.read(_TAIL_BYTES)
        except OSError:
            return  # there is none yet, or the run directory has gone, which the events report
        first, self._offset = self._offset is None, start + len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if whole:
            self._kept += [_shown(line) for line in whole]
            self.lines = tuple(self._kept)
            self.added += 0 if first else len(whole)

    def _follow(self) -> None:
        while not self._closed.is_set():
            self.look()
            self._closed.wait(_EVERY_S)


def _shown(line: bytes) -> str:
    """A line as a terminal would show it: of a redrawn progress bar, only the last state."""
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return _COLOURS.sub("", text).expandtabs()
