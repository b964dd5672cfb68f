"""Deletes a run, but never one that a process owns, and never anything outside its directory."""

from __future__ import annotations

import os
import shutil

from trainer.errors import RunError
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import RunDir


def delete_run(run_dir: RunDir) -> None:
    """Delete a run permanently; RunError when a process owns it, it is only a link to a run, or it cannot be deleted."""
    path = run_dir.path
    if path.is_symlink():
        raise RunError(f"{path}: is a link to a run; delete the run itself: {path.resolve()}")
    lock = RunLock.take(run_dir)
    doomed = path.with_name(f".{path.name}.deleted-{os.getpid()}")
    try:
        path.rename(doomed)  # so that a half-deleted run is never taken for a whole one
        shutil.rmtree(doomed)
    except OSError as error:
        rest = doomed if doomed.exists() else path
        raise RunError(f"{rest}: cannot be deleted: {error.strerror or error}; delete it by hand") from error
    finally:
        lock.release()
