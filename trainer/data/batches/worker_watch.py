"""Detects the death of a decoding worker, and unblocks readers that wait for data it will never send."""

from __future__ import annotations

import contextlib
import threading
import time
from multiprocessing import connection
from typing import Any

_EXIT_CODE_S = 1.0
"""Seconds to wait for an exit code: the sentinel fires a moment earlier, and another thread may be asking for the code."""


class WorkerWatch:
    """Watches the processes of a DataLoader's iterator on a separate thread.

    They share one pipe. A worker killed while it writes leaves half a message in it, whose rest the reader waits for,
    and holds the lock on the pipe, which the other workers wait for. So at the first death all are killed and the pipe
    is closed: the reader then gets EOF. `exit_codes` are those of workers that ended by themselves.
    """

    def __init__(self, stream: Any) -> None:
        """Start watching a DataLoader's iterator; torch has no public names for its processes and their pipe."""
        self.exit_codes: set[int | None] = set()
        self._processes = list(stream._workers)
        self._sentinels = [process.sentinel for process in self._processes]
        self._pipe = stream._worker_result_queue._writer
        self._woken, self._waker = connection.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._wait, name="worker-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; `exit_codes` is then complete."""
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
        """Record the exit codes of the processes whose sentinels fired; none of these was stopped from here."""
        end = time.monotonic() + _EXIT_CODE_S
        for process in self._processes:
            if process.sentinel in ended:
                while process.exitcode is None and time.monotonic() < end:
                    time.sleep(0.001)
                self.exit_codes.add(process.exitcode)
