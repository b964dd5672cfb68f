"""Sees the death of a decoding worker from outside, and frees whoever waits for what it will never send."""

from __future__ import annotations

import contextlib
import threading
import time
from multiprocessing import connection
from typing import Any

_EXIT_CODE_S = 1.0
"""The sentinel comes a moment before the exit code, which another thread may just be asking the system for."""


class WorkerWatch:
    """Watches the processes of a DataLoader's iterator on a thread of its own.

    They share one pipe. A worker that is killed while it writes leaves half a message in it, for whose rest the reader waits, and
    its lock on the pipe, for which the others do. So with the first death all are ended, and the pipe is closed: then the reader
    finds its end.

    Attributes:
        exit_codes: Of workers that ended by themselves.
    """

    def __init__(self, stream: Any) -> None:
        """Begin to watch.

        Args:
            stream: The iterator; torch has no public names for its processes and their pipe.
        """
        self.exit_codes: set[int | None] = set()
        self._processes = list(stream._workers)
        self._sentinels = [process.sentinel for process in self._processes]
        self._pipe = stream._worker_result_queue._writer
        self._woken, self._waker = connection.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._wait, name="worker-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more; `exit_codes` is complete then."""
        self._waker.close()
        self._thread.join()
        self._woken.close()
        if not self.exit_codes:
            self._note(connection.wait(self._sentinels, timeout=0))

    def _wait(self) -> None:
        ended = connection.wait([self._woken, *self._sentinels])
        if self._woken in ended:
            return
        self._note(ended)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_EXIT_CODE_S)
        with contextlib.suppress(OSError):  # closed already
            self._pipe.close()

    def _note(self, ended: list[Any]) -> None:
        """Keep how those ended whose sentinels say so; nobody has ended them here."""
        end = time.monotonic() + _EXIT_CODE_S
        for process in self._processes:
            if process.sentinel in ended:
                while process.exitcode is None and time.monotonic() < end:
                    time.sleep(0.001)
                self.exit_codes.add(process.exitcode)
