"""Opens a run for writing: creates or finds its directory, locks it, opens its log. Torch-free."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.plain_config import PlainConfig
from trainer.errors import DiskError, R18Error, RunError
from trainer.host.atomic_files import write_atomically
from trainer.run.folder.handle import RunDirHandle, redirect_output_to
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import RunDir, create_run, refuse_links
from trainer.run.log.end_hook import EndHook
from trainer.run.log.reader import read_records
from trainer.run.log.results_csv import ResultsCsv
from trainer.run.log.writer import EventLog

if TYPE_CHECKING:
    from trainer.config.schema import Config


_PATIENCE_S = 10.0  # longest wait in seconds, at the end, for a running check of the directory
_WHOLE_DIRECTORY = ("",)  # `Displacement.deleted` for the directory itself


@dataclass(kw_only=True)
class OpenRun:
    """A run that this process may write to."""

    run_dir: RunDirHandle  # follows the directory when it is moved
    runs_dir: Path  # where other runs are looked up by name
    settings: PlainConfig
    lock: RunLock
    log: EventLog
    resume: bool  # whether training continues from the newest checkpoint
    made_runs_dir: bool = False  # whether runs_dir was created for this run
    _repair_lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)

    @property
    def config(self) -> Config:
        """Typed configuration, for use after the first frame."""
        return self.settings.typed

    def change(self, settings: PlainConfig) -> None:
        """Replace the settings and write them to the run; when that fails, DiskError, and the old ones stay in force."""
        before, self.settings = self.settings, settings
        try:
            self.write_config()
        except DiskError:
            self.settings = before
            raise

    def write_config(self) -> None:
        """Write the configuration, with the changes of a resume, to the run; DiskError when that fails."""
        try:
            write_atomically(self.run_dir.config, self.settings.yaml.encode())
        except OSError as error:
            raise DiskError(
                f"{self.run_dir.config}: cannot be written: {error}; free some space, then resume again"
            ) from error

    def repair_directory(self) -> Displacement | None:
        """Follow a moved run directory and create deleted parts again; returns what was repaired, or None.

        Deleted output and checkpoints are lost; the log is not, since this process holds the file open. OSError or
        RunError when the directory cannot be created again; RunError when another process has the run's lock.
        """
        with self._repair_lock:
            if self._closed.is_set():
                return None
            before = self.run_dir.path
            if not self.run_dir.follow():
                return Displacement(before, self._recreate(before), deleted=_WHOLE_DIRECTORY)
            if self.run_dir.path != before:
                return Displacement(before, self.run_dir.path)
            parts = self._restore_parts(self.run_dir)
            return Displacement(before, before, deleted=parts) if parts else None

    def _recreate(self, before: Path) -> Path:
        """Create the directory again, in the same place or, if that fails, in the folder for temporary files."""
        try:
            return self._make_in(before.parent, before.name)
        except (OSError, RunError):
            return self._make_in(Path(tempfile.gettempdir()), before.name)

    def _make_in(self, folder: Path, name: str) -> Path:
        created = create_run(folder, name)
        try:
            self._restore_parts(created)
            self.run_dir.switch_to(created.path)
        except (OSError, RunError):
            shutil.rmtree(created.path, ignore_errors=True)  # otherwise every attempt would leave another folder
            raise
        redirect_output_to(created.log)
        return created.path

    def _restore_parts(self, run_dir: RunDir) -> tuple[str, ...]:
        """Create the missing parts of a run directory and return their names."""
        missing = [folder for folder in run_dir.folders if not folder.is_dir()]
        for folder in missing:
            folder.mkdir()
        if not run_dir.config.exists():
            missing.append(run_dir.config)
            write_atomically(run_dir.config, self.settings.yaml.encode())
        if not self.lock.is_on(run_dir):
            missing.append(run_dir.trainer)
            self.lock.renew(run_dir)
        if not self.log.is_in(run_dir.events):
            missing.append(run_dir.events)
            self.log.continue_in(run_dir.events)
        return tuple(path.name for path in missing)

    def discard(self) -> None:
        """Remove a new run that was refused before its first step; call it after `close`."""
        _remove(self.run_dir, self.runs_dir if self.made_runs_dir else None)

    def close(self) -> None:
        """Write the rest of the log and release the lock."""
        # Do not wait for a directory on a share that does not respond.
        locked = self._repair_lock.acquire(timeout=_PATIENCE_S)
        try:
            self._closed.set()
            self.log.close()
        finally:
            self.lock.release()
            self.run_dir.close()
            if locked:
                self._repair_lock.release()


@dataclass(frozen=True)
class Displacement:
    """A run directory that was moved, or deleted as a whole or in part, during training."""

    before: Path
    now: Path  # where it was found or created again
    deleted: tuple[str, ...] = ()  # names of the parts; `_WHOLE_DIRECTORY` for the directory itself

    @property
    def checkpoints_lost(self) -> bool:
        """Whether the checkpoints were deleted, too."""
        return self.deleted == _WHOLE_DIRECTORY or "checkpoints" in self.deleted

    def __str__(self) -> str:
        if self.deleted and self.deleted != _WHOLE_DIRECTORY:
            return f"{', '.join(self.deleted)} of {self.now} was deleted during training; it is created again"
        if self.deleted:
            return f"{self.before} was deleted during training; {self.now} holds everything from now on, log included"
        return f"{self.before} was moved to {self.now}; the run continues there"


def open_new_run(settings: PlainConfig, runs_dir: Path) -> OpenRun:
    """Create a run directory and become its owner; RunError when that fails."""
    made_runs_dir = not runs_dir.exists()
    run_dir = create_run(runs_dir, settings.values["run"]["name"])
    lock = None
    try:
        lock = RunLock.take(run_dir)
        # Before the log, which makes a directory a run.
        write_atomically(run_dir.config, settings.yaml.encode())
        run = _open(run_dir, runs_dir, settings, lock, resume=False)
    except (OSError, R18Error) as error:
        if lock is not None:
            lock.release()
        _remove(run_dir, runs_dir if made_runs_dir else None)
        if isinstance(error, R18Error):
            raise
        raise RunError(f"{run_dir.path}: cannot be written: {error}") from error
    run.made_runs_dir = made_runs_dir
    return run


def _remove(run_dir: RunDir, made_runs_dir: Path | None) -> None:
    """Remove a run directory, and the folder of runs if it was created for this run."""
    shutil.rmtree(run_dir.path, ignore_errors=True)
    if made_runs_dir is not None:
        with contextlib.suppress(OSError):  # there are other runs in it by now
            made_runs_dir.rmdir()


def open_for_resume(run_dir: RunDir, settings: PlainConfig, runs_dir: Path) -> OpenRun:
    """Become the owner of an existing run; RunError when it is live or cannot be written.

    `settings` are from `resumed_config`; `write_config` writes them once the data and the device have been found.
    """
    refuse_links(run_dir)
    lock = RunLock.take(run_dir)
    try:
        _remove_unfinished(run_dir)
        return _open(run_dir, runs_dir, settings, lock, resume=True)
    except OSError as error:
        lock.release()
        raise RunError(f"{run_dir.path}: cannot be written: {error}") from error


_UNFINISHED = re.compile(r"\.(step-\d+\.safetensors|model\.onnx|.+\.\d+)\.tmp")
"""Temporary names of checkpoints, exports and `write_atomically`."""


def _remove_unfinished(run_dir: RunDir) -> None:
    """Remove temporary files of a killed trainer; a checkpoint is as large as the model."""
    for folder in (run_dir.path, run_dir.checkpoints, run_dir.export, *run_dir.evaluation.glob("*")):
        for path in folder.glob(".*.tmp"):
            if _UNFINISHED.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def _open(run_dir: RunDir, runs_dir: Path, settings: PlainConfig, lock: RunLock, *, resume: bool) -> OpenRun:
    held = RunDirHandle(run_dir.path)
    results = ResultsCsv(held)
    if run_dir.events.exists():
        results.replay(read_records(run_dir.events))
    log = EventLog(run_dir.events, observers=(results, EndHook(held, os.environ)))
    return OpenRun(run_dir=held, runs_dir=runs_dir, settings=settings, lock=lock, log=log, resume=resume)
