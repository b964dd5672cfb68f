"""Writes snapshots on a separate thread, so that training never waits for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainer.errors import CheckpointError
from trainer.host.atomic_files import free_bytes
from trainer.model.checkpoint import Checkpoint, write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.log.result_events import CheckpointFailed, CheckpointSaved
from trainer.run.log.writer import EventLog
from trainer.training.snapshot import Snapshot

_SPARE_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    snapshot: Snapshot
    pinned: bool
    best: bool

    def joined(self, other: _Job) -> _Job:
        return replace(self, pinned=self.pinned or other.pinned, best=self.best or other.best)


class CheckpointWriter:
    """Writes snapshots from a queue, in which a newer one replaces an older one whose write has not begun.

    A pinned snapshot is never replaced; a new best replaces a waiting best. A best that could not be written is retried
    with the next snapshot, unless there is a better one. `submit` and `forget_unsaved` are called by the training
    thread, `wait_for` and `close` by any.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        log: EventLog,
        *,
        find_folder: Callable[[], None] = lambda: None,
        free_bytes: Callable[[CheckpointFolder], float] = lambda where: free_bytes(where.path),
    ) -> None:
        self._folder = folder
        self._log = log
        self._find_folder = find_folder  # called before each write: the folder may have been moved or deleted
        self._free_bytes = free_bytes
        self._jobs: dict[int, _Job] = {}  # by step, in the order of writing
        self._closed = False
        self._writing = False
        self._outcomes: dict[int, str] = {}
        self._unsaved_best: _Job | None = None
        self._unsaved_pins: set[int] = set()
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def submit(self, snapshot: Snapshot, *, pinned: bool = False, best: bool = False) -> None:
        """Queue a snapshot."""
        with self._wake:
            step, waiting = snapshot.step, self._with_unsaved_best()
            job = _Job(snapshot=snapshot, pinned=pinned or step in self._unsaved_pins, best=best)
            job = job.joined(waiting.pop(step)) if step in waiting else job
            older = {other: replace(old, best=old.best and not best) for other, old in waiting.items()}
            self._jobs = {other: old for other, old in older.items() if old.pinned or old.best} | {step: job}
            self._outcomes.pop(step, None)
            self._wake.notify_all()

    def forget_unsaved(self) -> None:
        """Do not retry failed writes: the run has discarded these states."""
        with self._wake:
            self._unsaved_best = None
            self._unsaved_pins.clear()

    def _with_unsaved_best(self) -> dict[int, _Job]:
        unsaved, self._unsaved_best = self._unsaved_best, None
        if unsaved is None or any(job.best for job in self._jobs.values()):
            return dict(self._jobs)
        return {unsaved.snapshot.step: unsaved, **self._jobs}

    def mark_written(self, step: int) -> None:
        """Mark the checkpoint of a step as already on disk: a resume started from it."""
        with self._wake:
            self._outcomes[step] = ""

    def wait_for(self, step: int, timeout: float) -> str | None:
        """Wait for the write of a step; returns the problem, empty once it is on disk, None at the timeout."""
        with self._wake:
            self._wake.wait_for(lambda: step in self._outcomes, timeout)
            return self._outcomes.get(step)

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until every snapshot is written or has failed; False at the timeout."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._jobs and not self._writing, timeout)

    def close(self, timeout: float = 60.0) -> None:
        """Write the queue and end the thread; what is not written by the timeout is discarded and reported."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._wake:
                given_up, self._jobs = self._jobs, {}
            for step in given_up:
                self._log.publish(CheckpointFailed(step=step, error="given up: the disk does not respond"))

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                step, job = next(iter(self._jobs.items()))
                del self._jobs[step]
                self._writing = True
            outcome = self._write(job)
            with self._wake:
                if step not in self._jobs:  # otherwise a newer state of the same step is still to come
                    self._outcomes[step] = outcome
                self._record_outcome(job, saved=not outcome)
                self._writing = False
                self._wake.notify_all()

    def _record_outcome(self, job: _Job, *, saved: bool) -> None:
        """Record which requested checkpoints could not be written."""
        step = job.snapshot.step
        if saved:
            self._unsaved_pins.discard(step)
            self._unsaved_best = None if job.best else self._unsaved_best
        elif step in self._jobs:
            self._jobs[step] = self._jobs[step].joined(job)
        else:
            if job.pinned:
                self._unsaved_pins.add(step)
            if job.best and not any(waiting.best for waiting in self._jobs.values()):
                self._unsaved_best = job

    def _write(self, job: _Job) -> str:
        begun = time.perf_counter()
        step = job.snapshot.step
        try:
            self._find_folder()
            path = self._folder.at(step)
            checkpoint = job.snapshot.completed()
            self._check_space(checkpoint)
            # A resume continues the log from this checkpoint; but a log that cannot be written must not prevent the save.
            self._log.sync(timeout=5.0)
            digest = write_checkpoint(path, checkpoint)
            self._folder.publish(step, best=job.best, pinned=job.pinned)
            size = path.stat().st_size
        except Exception as error:  # noqa: BLE001 - this thread must survive: without it nothing is saved any more
            problem = (
                str(error) if isinstance(error, (OSError, CheckpointError)) else f"{type(error).__name__}: {error}"
            )
            self._log.publish(CheckpointFailed(step=step, error=problem))
            return problem
        self._log.publish(
            CheckpointSaved(
                step=step, path=f"{self._folder.path.name}/{path.name}", size_bytes=size, sha256=digest,
                pinned=job.pinned, best=job.best, seconds=round(time.perf_counter() - begun, 3),
            )
        )  # fmt: skip
        return ""

    def _check_space(self, checkpoint: Checkpoint) -> None:
        needed = sum(tensor.nbytes for tensor in checkpoint.tensors.values()) + _SPARE_BYTES
        free = self._free_bytes(self._folder)
        if free < needed:
            raise OSError(
                f"only {free / 1e6:.0f} MB free, a checkpoint needs {needed / 1e6:.0f} MB; free space at {self._folder.path}"
            )
