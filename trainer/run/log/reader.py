"""Reads a run's log, as a whole or while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainer.run.log.codec import LINES_PER_CHUNK, read_lines
from trainer.run.log.event import Record

_READ_BYTES = 4 * 2**20  # at a time, so that the history of a long run is never in memory as a whole


class LogReader:
    """Follows a growing log, returning whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.bad_lines = 0  # skipped by `records`

    def read(self) -> list[bytes]:
        """Whole lines since the last call, at most some megabytes; none while the log is missing, OSError once it is deleted."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
                while data and b"\n" not in data:  # a longer line, or one that is still being written
                    more = file.read(len(data))
                    if not more:
                        break
                    data += more
        except FileNotFoundError:
            if self._offset:
                raise
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        return data[:end].splitlines(keepends=True)

    def records(self) -> Iterator[Record]:
        """Readable records among the new lines."""
        while lines := self.read():
            for start in range(0, len(lines), LINES_PER_CHUNK):
                records, bad = read_lines(lines[start : start + LINES_PER_CHUNK])
                self.bad_lines += bad
                yield from records


def read_records(path: Path) -> Iterator[Record]:
    """Every readable record of a log that is no longer written. Iterate; do not keep all records of a long run in memory."""
    return LogReader(path).records()
