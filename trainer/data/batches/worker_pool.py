"""The worker processes of a DataLoader's iterator: started together, watched, and stopped in any state."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader

from trainer.data.batches.worker_watch import WorkerWatch

T = TypeVar("T")

_EXIT_TIMEOUT_S = 2.0
"""Seconds before workers are killed. They exit after the batch they decode, but one that waits for a share may never do so."""


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
        """Return the next batch; for its errors see `trainer.data.batches.worker_failures`."""
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


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(_EXIT_TIMEOUT_S)
