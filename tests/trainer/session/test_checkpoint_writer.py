"""The thread that writes checkpoints: order with the log, free space, and requests for a waiting state."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.support.checkpoints import ready
from tests.trainer.model.test_checkpoint_gates import checkpoint
from trainer.model.checkpoint import Checkpoint, file_name, write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Heartbeat
from trainer.run.log.writer import EventLog
from trainer.session import checkpoint_writer
from trainer.session.checkpoint_writer import CheckpointWriter


class Log:
    """Stands in for the event log."""

    def __init__(self, done: list[str], *, answers: bool = True) -> None:
        self._done, self._answers = done, answers

    def sync(self, timeout: float) -> bool:
        assert 0 < timeout <= 10, "the weights are saved even if the log cannot be written"
        self._done.append("the log")
        return self._answers

    def publish(self, event: object) -> None:
        self._done.append(type(event).__name__)


@pytest.mark.parametrize("answers", [True, False])
def test_the_log_is_synced_before_each_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    done: list[str] = []

    def write(path: Path, one: Checkpoint) -> str:
        done.append(f"step {one.step}")
        return write_checkpoint(path, one)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write)
    folder = CheckpointFolder(RunDir(tmp_path), keep=2)
    folder.path.mkdir()
    writer = CheckpointWriter(folder, Log(done, answers=answers))  # type: ignore[arg-type]
    for step in (1, 2):
        writer.submit(ready(checkpoint(step)), pinned=True)
        assert writer.wait_for(step, timeout=30) == ""
    writer.close()
    assert done == ["the log", "step 1", "CheckpointSaved", "the log", "step 2", "CheckpointSaved"]


def test_a_synced_log_contains_all_published_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    synced: list[int] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(path.read_bytes().count(b"\n"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    for _ in range(3):
        log.publish(Heartbeat())
    assert log.sync()
    assert synced == [3]
    log.close()


@pytest.mark.parametrize(("missing_bytes", "fits"), [(0, True), (1, False)])
def test_a_checkpoint_needs_free_space_for_itself_and_a_reserve(tmp_path: Path, missing_bytes: int, fits: bool) -> None:
    needed = 3 * 6 * 4 + 8 + 16 * 2**20  # three tensors of six floats, a counter, 16 MiB
    folder, done = CheckpointFolder(RunDir(tmp_path), keep=2), list[str]()
    folder.path.mkdir()
    writer = CheckpointWriter(folder, Log(done), free_bytes=lambda _: needed - missing_bytes)  # type: ignore[arg-type]
    writer.submit(ready(checkpoint()))
    problem = str(writer.wait_for(1, timeout=30))
    writer.close()
    assert problem == "" if fits else "only 17 MB free, a checkpoint needs 17 MB; free space" in problem
    assert done == (["the log", "CheckpointSaved"] if fits else ["CheckpointFailed"])
    assert folder.steps() == ([1] if fits else [])


@pytest.mark.parametrize("requested", [{"pinned": True}, {"best": True}, {"pinned": True, "best": True}, {}])
def test_a_newer_state_of_a_waiting_step_keeps_its_flags(tmp_path: Path, requested: dict[str, bool]) -> None:
    begun, proceed = threading.Event(), threading.Event()

    def room(_: CheckpointFolder) -> float:
        begun.set()
        proceed.wait(30)
        return 2.0**40

    folder = CheckpointFolder(RunDir(tmp_path), keep=2)
    folder.path.mkdir()
    writer = CheckpointWriter(folder, Log([]), free_bytes=room)  # type: ignore[arg-type]
    writer.submit(ready(checkpoint(1)))
    assert begun.wait(30)
    writer.submit(ready(checkpoint(2)), **requested)
    writer.submit(ready(checkpoint(2)))
    proceed.set()
    assert writer.wait_for(2, timeout=30) == ""
    writer.close()
    assert (folder.pointer("best") is not None) is ("best" in requested)
    assert folder._pinned() == ({file_name(2)} if "pinned" in requested else set())
