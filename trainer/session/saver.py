"""Decides when and what a session saves: snapshots on the training thread, written on another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from trainer.config.schema import Config
from trainer.errors import CheckpointError, DiskError, R18Error
from trainer.model.checkpoint import Checkpoint, read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.checkpoint_records import RunRecord
from trainer.run.log.run_events import Warned
from trainer.session.checkpoint_writer import CheckpointWriter
from trainer.session.open_run import OpenRun
from trainer.training.callbacks import DivergedError
from trainer.training.loop import Trainer

_TIMEOUT_S = 120.0
_POLL_S = 0.2
_IDLE_S = 4.0  # a signal that comes meanwhile must be handled within 5 s
_ATTEMPTS = 2


class Saver:
    """Checkpoints of one session. Everything happens on the training thread, unless noted."""

    def __init__(self, run: OpenRun) -> None:
        self.folder = CheckpointFolder(run.run_dir, keep=run.config.checkpoint.keep)
        self.run_record: RunRecord | None = None  # set once the parts are built
        self._run = run
        self._writer = CheckpointWriter(self.folder, run.log, find_folder=self._find_directory)
        self._saved_step = -1
        self._best_step = -1  # handed to the writer in this session
        self._given_up = False

    def due(self, trainer: Trainer) -> bool:
        """Whether the last save is older than `checkpoint.every_s`; never after a skipped step."""
        if (
            time.monotonic() - trainer.last_save < self._run.config.checkpoint.every_s
            or trainer.skipped_from is not None
        ):
            return False
        trainer.drain()  # the newest steps may have gone wrong
        return trainer.skipped_from is None

    def save(self, trainer: Trainer, *, best: bool = False, pinned: bool = False) -> None:
        """Snapshot the state and hand it to the writer."""
        trainer.drain()
        before = trainer.stopwatch.switch("save")
        self.folder.rollback_step = next(iter(self.steps_before(trainer.skipped_from)), None)
        assert self.run_record is not None
        choices = self.run_record.choices | {"micro_batches": trainer.train_step.micro_batches}
        self.run_record = replace(self.run_record, choices=choices)
        self._writer.submit(trainer.state.snapshot(self.run_record), best=best, pinned=pinned)
        self._saved_step = trainer.state.step
        self._best_step = trainer.state.step if best else self._best_step
        trainer.last_save = time.monotonic()
        trainer.stopwatch.switch(before)

    def record_config(self, config: Config) -> None:
        """Store a configuration that was changed during training in later checkpoints."""
        assert self.run_record is not None
        self.run_record = replace(self.run_record, config=config.model_dump(mode="json"))

    def steps_before(self, step: int | None) -> list[int]:
        """Steps before `step` that have a checkpoint, newest first; empty for None."""
        return [] if step is None else [saved for saved in reversed(self.folder.steps()) if saved < step]

    def resumed_from(self, step: int) -> None:
        """Record that the state of a step is already on disk."""
        self._saved_step = step
        self._writer.mark_written(step)

    def mark_stale(self) -> None:
        """Mark the newest checkpoint as stale: it no longer matches the state."""
        self._saved_step = -1

    def set_aside_after(self, step: int) -> None:
        """Set later checkpoints aside, so that a resume does not continue from a discarded state."""
        self._writer.forget_unsaved()
        self.folder.set_aside([saved for saved in self.folder.steps() if saved > step], suffix=".given-up")

    def wait_for(self, step: int) -> str:
        """Wait until the checkpoint of a step is on disk; returns the problem, empty if none. For any thread."""
        problem = self._writer.wait_for(step, _TIMEOUT_S)
        return f"not written within {_TIMEOUT_S:.0f} s" if problem is None else problem

    def saved_best(self, step: int) -> Checkpoint:
        """Read the best state from disk; CheckpointError when it could not be written or is damaged."""
        problem = self.wait_for(step) if step == self._best_step else ""
        if problem:
            raise CheckpointError(f"{self.folder.at(step)}: {problem}")
        return read_checkpoint(self.folder.at(step))

    def wait_until_idle(self) -> bool:
        """Wait a few seconds until everything is written or has failed; False when it is not."""
        return self._writer.wait_until_idle(_IDLE_S)

    def save_final(self, trainer: Trainer, try_again: Callable[[str], bool], given_up: Callable[[], bool]) -> None:
        """Write the last state of the run to disk.

        `try_again` gets the reason for a failed save, waits, and returns whether to retry; `given_up` is called during
        a write and returns whether the user wants to exit without it. DivergedError when the weights are not finite,
        DiskError when the state was not saved.
        """
        step = trainer.state.step
        if not trainer.state.finite:
            raise DivergedError(
                f"the weights are NaN or infinite after step {step:,}, so they are not saved; resume and lower the rate with l, "
                f"or start a new run with a lower optim.lr or train.max_grad_norm=1.0"
            )
        problem = self._wait(step, given_up) if self._saved_step == step else "not saved yet"
        attempts = 0
        while problem:
            if self._given_up or (attempts >= _ATTEMPTS and not try_again(problem)):
                self._given_up = True
                raise DiskError(
                    f"step {step:,} could not be saved: {problem}. Free some space, then resume from the last checkpoint"
                )
            self.save(trainer)
            problem = self._wait(step, given_up)
            attempts += 1

    def _wait(self, step: int, given_up: Callable[[], bool]) -> str:
        """Wait for a write unless the user gives up; returns the reason why it is not on disk, empty when it is."""
        end = time.monotonic() + _TIMEOUT_S
        while (problem := self._writer.wait_for(step, _POLL_S)) is None and time.monotonic() < end:
            if given_up():
                self._given_up = True
                return "the disk has not responded yet"
        return f"not written within {_TIMEOUT_S:.0f} s" if problem is None else problem

    def close(self) -> None:
        """Write the queue and end the thread; a write that has been given up is discarded."""
        self._writer.close(0.0 if self._given_up else 60.0)

    def _find_directory(self) -> None:
        """Follow the run directory, or create it again. On the writer's thread."""
        try:
            found = self._run.repair_directory()
        except (OSError, R18Error):
            return  # the save that follows fails for the same reason and reports it
        if found is not None:
            self._run.log.publish(Warned(message=str(found)))
