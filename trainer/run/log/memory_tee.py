"""Passes the published lines of a log to a reader in the same process."""

from __future__ import annotations

from collections import deque

LIMIT_BYTES = 64 * 2**20  # unread: a reader that a stalled terminal blocks for days must not fill the memory


class MemoryTee:
    """Buffer of lines: filled by any thread, read by one."""

    def __init__(self) -> None:
        self.overflowed = False  # once true, unread lines and all later ones are only in the file
        self._lines: deque[bytes] = deque()
        self._added, self._taken = 0, 0

    def add(self, line: bytes) -> None:
        """Add a line. The log calls this under its lock; the reader takes no lock."""
        self._added += len(line)
        if self._added - self._taken > LIMIT_BYTES:
            self.overflowed = True
        if self.overflowed:
            self._lines.clear()
        else:
            self._lines.append(line)

    def read(self) -> list[bytes]:
        """All lines added since the last call."""
        lines = []
        while self._lines:
            try:
                lines.append(self._lines.popleft())
            except IndexError:
                break  # it has just overflowed
        self._taken += sum(map(len, lines))
        return lines
