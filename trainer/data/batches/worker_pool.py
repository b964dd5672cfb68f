"""Starts, watches and stops the worker processes of a DataLoader's iterator, and determines why they died."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader

T = TypeVar("T")

_EXIT_TIMEOUT_S = 2.0
"""Seconds before workers are killed. They exit after the batch they decode, but one that waits for a share may never do so."""

_EXIT_CODE_S = 1.0
"""Seconds to wait for an exit code: the sentinel fires a moment earlier, and another thread may be asking for the code."""


class Workers(Generic[T]):
    """Worker processes for one pass of a DataLoader, from start to end."""

    def __init__(self, loader: DataLoader[T]) -> None:
        """Start the processes, all or none; OSError or RuntimeError when one, or the watching thread, cannot start."""
        before = set(multiprocessing.active_children())
        self._stream: Any = None
        try:
            self._stream = iter(loader)
            self._watch = WorkerWatch(self._stream)
        except BaseException:
            # No owner would stop the processes that have already started, and they would keep the interpreter from exiting.
            _kill(set(multiprocessing.active_children()) - before)
            self._shut_down()
            raise

    def take(self) -> T:
        """Return the next batch; for its errors see `is_timeout`, `is_worker_death` and `cause_of_death`."""
        batch: T = next(self._stream)
        return batch

    @property
    def exit_codes(self) -> set[int | None]:
        """Exit codes of workers that ended by themselves; complete after `close`."""
        return self._watch.exit_codes

    def close(self) -> None:
        """Stop the processes."""
        self._watch.close()
        kill_timer = threading.Timer(_EXIT_TIMEOUT_S, self._kill_remaining_workers)
        try:
            kill_timer.start()
        except RuntimeError:  # no thread can be started
            self._kill_remaining_workers()
        self._shut_down()
        kill_timer.cancel()
        if kill_timer.ident is not None:
            kill_timer.join()  # if two threads wait for a process's exit code, the system gives it to only one

    def _shut_down(self) -> None:
        # Not left to the garbage collector: an exception that propagates still holds the iterator. torch has no public name for
        # this; it waits for each process, and sends SIGTERM, which ours ignore, to those that stay.
        if self._stream is not None:
            self._stream._shutdown_workers()

    def _kill_remaining_workers(self) -> None:
        _kill(self._stream._workers)
        with contextlib.suppress(OSError):  # closed already
            self._stream._worker_result_queue._writer.close()  # a reader waiting for the rest of a message gets EOF


def _kill(processes: Iterable[BaseProcess], *, timeout_s: float = _EXIT_TIMEOUT_S) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(timeout_s)


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
        _kill(self._processes, timeout_s=_EXIT_CODE_S)
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


@dataclass(frozen=True)
class Cause:
    """Cause of the death of workers, described for people, and whether it was too little shared memory."""

    text: str
    of_shared_memory: bool


def is_timeout(error: Exception) -> bool:
    """Whether the error is only the loader's timeout."""
    return "DataLoader timed out" in str(error)


def is_worker_death(error: Exception) -> bool:
    """Whether the worker is gone, rather than only passing on an error.

    torch has no exception type for this. "Caught ... in DataLoader worker" is an error passed on by a live worker; only a lack of
    memory there counts as its death.
    """
    text = str(error)
    gone = isinstance(error, (ConnectionError, EOFError, FileNotFoundError, MemoryError))
    died = ("DataLoader worker" in text and "Caught" not in text) or "Pin memory thread exited" in text
    return gone or died or _lacks_shared_memory(text)


def cause_of_death(exit_codes: Collection[int | None], error: Exception) -> Cause:
    """Determine why a worker died, from the loader's error and the exit codes of workers that ended by themselves.

    Outside the main thread torch reports only "exited unexpectedly".
    """
    if -signal.SIGBUS in exit_codes:
        return Cause("no room in shared memory (bus error)", True)
    if -signal.SIGKILL in exit_codes:
        return Cause("killed (by the system, if memory ran out)", False)
    # The last line: the worker's traceback is above it, if there was time for one.
    reason = str(error).strip().rpartition("\n")[2][:200] or type(error).__name__
    return Cause(reason, _lacks_shared_memory(str(error)))


def _lacks_shared_memory(text: str) -> bool:
    return "shared memory" in text or "file </torch_" in text
