"""Run directories that are moved or deleted during training."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.running import events_of, new_run, start, train, view_of
from trainer.config.schema import Config
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.handle import RunDirHandle
from trainer.run.folder.lock import is_live, read_owner
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.result_events import EpochEnded, Steps
from trainer.run.log.run_events import Opened, Warned
from trainer.session import training_thread as session_thread
from trainer.session.open_run import OpenRun
from trainer.session.training_thread import TrainingThread


def delete(opened: OpenRun, *parts: str) -> None:
    """Delete a run's directory or parts of it while its trainer does not check it, though it may write there."""
    with opened._repair_lock:
        for path in [opened.run_dir.path / part for part in parts] or [opened.run_dir.path]:
            wipe(path)


def wipe(path: Path) -> None:
    while path.exists():
        with contextlib.suppress(OSError):
            path.unlink() if path.is_file() else shutil.rmtree(path)


@pytest.fixture(autouse=True)
def frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_thread, "HEARTBEAT_S", 0.05)


@pytest.fixture
def long_config(folder_config: Config) -> Config:
    return folder_config.model_copy(update={"train": folder_config.train.model_copy(update={"epochs": 100})})


@pytest.fixture
def trained(long_config: Config, tmp_path: Path) -> Callable[[Callable[[OpenRun], None]], TrainingThread]:
    """Trains, changes the directory after the first steps, and stops once the trainer has reported the change."""

    def run(act: Callable[[OpenRun], None]) -> TrainingThread:
        opened = new_run(long_config, tmp_path / "runs")
        thread, publish = TrainingThread(opened, hold_open=False), opened.log.publish

        def act_and_stop(event: Event) -> object:
            result = publish(event)
            if isinstance(event, Steps) and event.first_step == 1:
                act(opened)
            if isinstance(event, Warned) and (" was moved to " in event.message or " was deleted " in event.message):
                owners.append(read_owner(opened.run_dir))
                thread.stop()
            return result

        owners: list[object] = []
        opened.log.publish = act_and_stop  # type: ignore[method-assign, assignment]
        thread.start()
        assert thread.join(60)
        assert thread.exit_code == 0
        assert owners
        assert owners[0] is not None, "the lock moves with the run"
        return thread

    return run


def assert_complete_and_resumable(run: RunDir, config: Config, runs: Path) -> None:
    view = view_of(run)
    step = view.step
    assert events_of(run, Opened), "the log begins with the first event"
    assert read_checkpoint(CheckpointFolder(run, keep=2).choose("latest")).step == step
    assert not is_live(run)
    end = step // 4 + 1
    thread = train(config, runs, resume=run, overrides=(f"train.epochs={end}",))
    assert thread.exit_code == 0
    assert view_of(run).step == 4 * end


def test_a_run_continues_in_its_moved_directory(
    trained: Callable[..., TrainingThread], long_config: Config, tmp_path: Path
) -> None:
    new = tmp_path / "elsewhere" / "a better name"
    new.parent.mkdir()
    thread = trained(lambda opened: opened.run_dir.path.rename(new))
    assert thread.run.run_dir.path == new
    assert not (tmp_path / "runs" / "run").exists()
    (warning,) = [event for event in events_of(RunDir(new), Warned) if "moved" in event.message]
    assert warning.message.endswith(f"was moved to {new}; the run continues there")
    assert_complete_and_resumable(RunDir(new), long_config, tmp_path / "runs")


def test_a_deleted_run_directory_is_created_again_with_its_log(
    trained: Callable[..., TrainingThread], long_config: Config, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "runs" / "run")
    thread = trained(delete)
    assert thread.run.run_dir.path == run.path
    assert run.path.stat().st_mode & 0o077 == 0, "private again"
    assert_complete_and_resumable(run, long_config, tmp_path / "runs")


def test_deleted_parts_are_created_again(
    trained: Callable[..., TrainingThread], long_config: Config, tmp_path: Path
) -> None:
    """A directory like this is left by an `rm -rf` during a write, or by a partial cleanup."""
    run = RunDir(tmp_path / "runs" / "run")

    trained(lambda opened: delete(opened, "checkpoints", "events.jsonl", "config.yaml", "trainer.json"))
    (warning,) = [event.message for event in events_of(run, Warned) if "deleted" in event.message]
    assert f"checkpoints, config.yaml, trainer.json, events.jsonl of {run.path} was deleted" in warning
    assert_complete_and_resumable(run, long_config, tmp_path / "runs")


def test_another_run_with_the_same_name_is_left_alone(
    trained: Callable[..., TrainingThread], long_config: Config, tmp_path: Path
) -> None:
    def replace(opened: OpenRun) -> None:
        path = opened.run_dir.path
        with opened._repair_lock:
            wipe(path)
            path.mkdir()
            (path / "events.jsonl").write_text("not ours\n")

    thread = trained(replace)
    assert (tmp_path / "runs" / "run" / "events.jsonl").read_text() == "not ours\n"
    assert thread.run.run_dir.name == "run-2"
    assert_complete_and_resumable(RunDir(tmp_path / "runs" / "run-2"), long_config, tmp_path / "runs")


def test_a_directory_that_cannot_be_created_again_is_reported_once(
    long_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.session import open_run

    def refuse(*_: object) -> RunDir:
        raise PermissionError("no room for it")

    opened = new_run(long_config, tmp_path / "runs")
    monkeypatch.setattr(open_run, "create_run", refuse)
    thread, tee, seen = start(opened), opened.log.tee(), b""
    while b'"Steps"' not in seen and b'"steps"' not in seen:
        seen += b"".join(tee.read())
    delete(opened)
    while b"cannot be created again: no room for it" not in seen:
        seen += b"".join(tee.read())
    monkeypatch.undo()
    while b" was deleted during training; " not in seen:
        seen += b"".join(tee.read())
    assert seen.count(b"cannot be created again") == 1
    thread.stop()
    assert thread.join(30)
    assert thread.exit_code == 0


def test_a_directory_that_cannot_be_created_again_moves_to_the_temporary_folder(
    long_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    opened = new_run(long_config, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "runs").touch()
    repaired = opened.repair_directory()
    assert repaired is not None
    assert repaired.now == opened.run_dir.path == tmp_path / "tmp" / opened.run_dir.name
    opened.close()


def test_a_failed_repair_leaves_nothing_behind(
    long_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = new_run(long_config, tmp_path / "runs")
    opened.log.publish(Warned(message="before"))
    delete(opened)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(opened.log, "continue_in", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            opened.repair_directory()
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.undo()
    repaired = opened.repair_directory()
    assert repaired is not None
    assert repaired.checkpoints_lost
    assert opened.repair_directory() is None
    assert is_live(opened.run_dir)
    assert sorted(path.name for path in opened.run_dir.path.iterdir()) == [
        "checkpoints", "config.yaml", "eval", "events.jsonl", "export", "log.txt", "trainer.json",
    ]  # fmt: skip
    opened.close()
    assert opened.repair_directory() is None, "nothing to repair after the end"
    assert [event.message for event in events_of(opened.run_dir, Warned)] == ["before"]


def test_a_directory_deleted_before_the_last_save_is_created_again(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last save checks the directory without waiting for a heartbeat."""
    monkeypatch.setattr(session_thread, "HEARTBEAT_S", 3600.0)
    opened = new_run(folder_config, tmp_path / "runs")
    thread, publish = TrainingThread(opened, hold_open=False), opened.log.publish

    def watch(event: Event) -> object:
        if isinstance(event, EpochEnded) and event.epoch == 2:
            delete(opened)
        return publish(event)

    opened.log.publish = watch  # type: ignore[method-assign, assignment]
    thread.start()
    assert thread.join(60)
    assert thread.exit_code == 0
    assert CheckpointFolder(opened.run_dir, keep=2).steps()[-1] == 8
    assert view_of(opened.run_dir).step == 8


def test_output_of_libraries_is_redirected_to_the_new_log(tmp_path: Path) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    script = (
        "import os, sys; from pathlib import Path; from trainer.run.folder.handle import redirect_output_to\n"
        f"os.unlink({str(old)!r}); redirect_output_to(Path({str(new)!r}))\n"
        "os.write(1, b'one '); os.write(2, b'two')"
    )
    with old.open("wb") as log:
        subprocess.run([sys.executable, "-c", script], stdout=log, stderr=log, check=True, env=os.environ)
    assert new.read_text() == "one two"


def test_a_directory_is_followed_through_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    held = RunDirHandle(path)
    assert held.follow()
    (tmp_path / "a").rename(tmp_path / "c")
    assert held.follow()
    assert held.path == tmp_path / "c" / "b"
    shutil.rmtree(held.path)
    assert not held.follow()
    held.close()
