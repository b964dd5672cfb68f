"""Cleanup for tests whose trainers outlive their terminals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trainer.run.folder.lock import is_live, read_owner
from trainer.run.folder.run_dir import list_runs


@pytest.fixture(autouse=True)
def end_trainers(tmp_path: Path) -> Iterator[None]:
    """Kill trainers of runs in the test's folder."""
    yield
    for run in list_runs(tmp_path / "runs"):
        if is_live(run):
            with contextlib.suppress(psutil.NoSuchProcess, KeyError):
                psutil.Process(int((read_owner(run) or {})["pid"])).kill()
