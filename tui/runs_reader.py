"""Reads the folder of runs on a thread of its own: it may lie on a slow disk, and the screen waits for nothing."""

from __future__ import annotations

import threading

from trainer.run.overview import RunOverview, RunsFolder

_EVERY_S = 1.0


class RunsReader:
    """The newest overview of a folder of runs. `runs` and `error` are replaced as a whole and may be read by any thread.

    Attributes:
        runs: None before the folder was read for the first time.
        error: Why it could not be read the last time; empty when it could.
    """

    def __init__(self, folder: RunsFolder) -> None:
        self.runs: list[RunOverview] | None = None
        self.error = ""
        self._folder = folder
        self._asked = threading.Event()
        self._closed = False
        # A daemon: a network volume that does not answer must not keep the program from ending.
        self._thread = threading.Thread(target=self._read_on, name="runs-reader", daemon=True)
        self._thread.start()

    def read_now(self) -> None:
        """Read at once: something was changed here."""
        self._asked.set()

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._asked.set()

    def _read_on(self) -> None:
        while not self._closed:
            self._asked.clear()
            try:
                self.runs, self.error = self._folder.refresh(), ""
            except Exception as error:  # noqa: BLE001 - shown in the list, and tried again
                self.error = f"{type(error).__name__}: {error}"
            self._asked.wait(_EVERY_S)
