"""Everything that a run of this process publishes, for a screen or for plain lines."""

from __future__ import annotations

from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import LogReader
from trainer.run.log.writer import EventLog


class LiveSource:
    """The log's lines so far, if `history`, then those of the writer's memory tee; a reader too far behind reads the file."""

    def __init__(self, run_dir: RunDir, log: EventLog, *, history: bool = True) -> None:
        self._run_dir = run_dir
        self._log = log
        self._tee = log.tee()
        self._history = LogReader(run_dir.events) if history else None
        self._file: LogReader | None = None

    def read(self) -> list[bytes]:
        """The next lines, none at the end. Some may come twice; the fold ignores lines seen before."""
        if self._history is not None:
            try:
                lines = self._history.read()
            except FileNotFoundError:
                # The file may have moved: read from its beginning next time.
                self._history = LogReader(self._run_dir.events)
                raise
            if lines:
                return lines
            self._history = None
        lines = self._tee.read()
        if self._tee.overflowed:
            self._file = self._file or LogReader(self._run_dir.events)
            lines += self._file.read()
        return lines

    def close(self) -> None:
        """Stop collecting lines."""
        self._log.drop(self._tee)
