"""Reads the folder of runs on a separate thread: it may be on a slow disk, and the screen must not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from trainer.run.view.overview import RunOverview, RunsFolder

_EVERY_S = 1.0  # time between two polls of the runs that have an owner
_SELDOM_S = 8.0  # longest time between two polls of all runs
_SHARE = 0.003  # share of a core for polling all runs
_PUBLISH_EVERY_S = 0.2
_SCREENFUL = 40
_YIELD_S = 0.0003  # pause after each run: the screen's thread gets the interpreter for a key pressed meanwhile


class RunsReader:
    """The newest overview of a folder of runs. The attributes are replaced as a whole and may be read by any thread."""

    def __init__(self, folder: RunsFolder) -> None:
        self.runs: list[RunOverview] | None = None  # runs found so far; None before the first
        self.unread = 0  # number of runs that have not been read yet
        self.error = ""  # why the folder could not be read last time; empty if it could
        self._folder = folder
        self._asked = threading.Event()
        self._closed = self._has_all = False
        # A daemon: a network volume that does not answer must not keep the program from ending.
        self._thread = threading.Thread(target=self._read_on, name="runs-reader", daemon=True)
        self._thread.start()

    def read_now(self) -> None:
        """Read at once: something was changed from here."""
        self._asked.set()

    def close(self) -> None:
        self._closed = True
        self._asked.set()

    def _read_on(self) -> None:
        next_s, asked = 0.0, True
        while not self._closed:
            whole = asked or time.monotonic() >= next_s or not self._has_all
            begun_s = time.thread_time()
            try:
                self._read(self._folder.steps() if whole else self._folder.live_steps())
                self.error = "" if whole else self.error
            except Exception as error:  # noqa: BLE001 - shown in the list, and tried again
                self.error = f"{type(error).__name__}: {error}"
            if whole:
                next_s = time.monotonic() + min((time.thread_time() - begun_s) / _SHARE, _SELDOM_S)
            asked = self._asked.wait(_EVERY_S)
            self._asked.clear()

    def _read(self, steps: Iterator[None]) -> None:
        published_s, count = time.monotonic(), 0
        for count, _ in enumerate(steps, 1):
            if self._closed:
                return
            is_due = count == _SCREENFUL or time.monotonic() - published_s > _PUBLISH_EVERY_S
            if is_due and not self._has_all:
                published_s = time.monotonic()
                self.runs, self.unread = self._folder.runs, self._folder.total - count
            time.sleep(_YIELD_S)
        if count or self._folder.total != len(self.runs or ()) or not self._has_all:
            self.runs, self.unread, self._has_all = self._folder.runs, 0, True
