"""Everything that a run of this process publishes, for a screen or for plain lines."""

from __future__ import annotations

from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import LogReader
from trainer.run.log.writer import EventLog


class LiveSource:
    """What stood in the log when it was opened, then the writer's memory tee, byte for byte what it writes.

    A reader that falls too far behind goes on with the file.
    """

    def __init__(self, run_dir: RunDir, log: EventLog, *, history: bool = True) -> None:
        """Begin to collect.

        Args:
            run_dir: The run; it may move.
            log: Its writer.
            history: Whether what was in the file before is read, too.
        """
        self._run_dir = run_dir
        self._log = log
        self._tee = log.tee()
        self._history = LogReader(run_dir.events) if history else None
        self._file: LogReader | None = None

    def read(self) -> list[bytes]:
        """The next lines, an empty list at the end. Some may come twice; the fold ignores what it has seen."""
        if self._history is not None:
            try:
                lines = self._history.read()
            except FileNotFoundError:
                # It has moved, perhaps: from its beginning the next time.
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
        """Keep no more lines for this reader."""
        self._log.drop(self._tee)
