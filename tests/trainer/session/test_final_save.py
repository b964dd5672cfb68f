"""The last save of a run on a full disk, and on one that does not respond."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.support.running import longer, new_run, start, train, view_of, wait_for
from tests.support.small_session import Clock, set_clock
from trainer.config.schema import Config
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd
from trainer.run.control.commands import CommandQueue
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.run_events import Acknowledged, StateChanged, Warned
from trainer.run.status import RunState
from trainer.session import final_save as last_save
from trainer.session.checkpoint_writer import CheckpointWriter
from trainer.session.final_save import FinalSave

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_a_full_disk_at_the_end_leaves_a_resumable_run_and_reports_no_save(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: CheckpointWriter, checkpoint: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(CheckpointWriter, "_check_space", full)
    thread = train(folder_config, tmp_path)
    view = view_of(thread.run.run_dir)
    assert thread.exit_code == 75
    assert view.finish is None
    assert view.failure is not None
    assert "could not be saved: No space left on device" in view.failure.error


def test_a_file_size_limit_leaves_no_half_written_checkpoint(tmp_path: Path) -> None:
    """The limit on file sizes stands in for a quota that is exceeded in the middle of the file."""
    command = [sys.executable, "-m", "trainer", "digits", *TINY, "train.epochs=1", "data.batch_size=256"]
    limited = subprocess.run(
        [*command, "--runs-dir", str(tmp_path)], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
    )  # fmt: skip
    run = RunDir(tmp_path / "digits")
    assert limited.returncode == 75, limited.stderr
    assert "File too large" in limited.stdout
    assert list(run.checkpoints.iterdir()) == []
    resume = [sys.executable, "-m", "trainer", "--resume", str(run.path)]
    assert subprocess.run(resume, capture_output=True, check=False).returncode == 0
    assert len(CheckpointFolder(run, keep=2).steps()) == 1


@pytest.mark.parametrize("waits", [True, False])
def test_with_a_dashboard_a_full_disk_is_retried_until_space_or_stop(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    def full(self: CheckpointWriter, checkpoint: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(last_save, "_TRY_AGAIN_S", 0.3)
    with monkeypatch.context() as disk:
        disk.setattr(CheckpointWriter, "_check_space", full)
        run = new_run(folder_config, tmp_path)
        thread = start(run, hold_open=True)
        wait_for(run.run_dir, lambda view: any("Retrying every" in note.text for note in view.notes))
        if not waits:
            thread.stop()
            view = wait_for(run.run_dir, lambda view: view.state is RunState.FAILED)
            assert view.failure is not None
            assert view.failure.exit_code == 75
    if waits:
        wait_for(run.run_dir, lambda view: view.state is RunState.FINISHED)
        assert CheckpointFolder(run.run_dir, keep=2).steps()[-1] == 8
    thread.release()
    assert thread.join(30)
    assert thread.exit_code == (0 if waits else 75)


def test_a_second_stop_exits_without_an_unresponsive_disk(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(CheckpointWriter, "_check_space", lambda *_: answers.wait(60))
    run = new_run(longer(folder_config, 1000), tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.step > 1)
    thread.stop()
    wait_for(run.run_dir, lambda view: view.state is RunState.STOPPING)
    thread.commands.send(again := cmd.Stop())
    wait_for(run.run_dir, lambda view: again.command_id in view.acknowledged)
    monkeypatch.setattr(last_save, "_LONG_S", 0.1)
    wait_for(run.run_dir, lambda view: any("is taking longer than" in note.text for note in view.notes))
    thread.commands.send(evaluate := cmd.Evaluate())
    view = wait_for(run.run_dir, lambda view: evaluate.command_id in view.acknowledged)
    assert "is waiting for its last save" in view.acknowledged[evaluate.command_id].message
    thread.stop()
    view = wait_for(run.run_dir, lambda view: view.failure is not None)
    assert view.failure is not None
    assert view.failure.exit_code == 75
    assert "could not be saved: the disk has not responded yet" in view.failure.error
    assert thread.join(10), "the run ends without the disk or another request"
    answers.set()


def test_one_stop_at_the_end_does_not_abandon_the_last_save(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(CheckpointWriter, "_check_space", lambda *_: answers.wait(60))
    run = new_run(folder_config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.state is RunState.SAVING)
    thread.commands.send(stop := cmd.Stop(reason="stopped", exit_code=0))
    wait_for(run.run_dir, lambda view: stop.command_id in view.acknowledged)
    answers.set()
    assert thread.join(30), "the run ends without another stop"
    assert thread.exit_code == 0
    assert CheckpointFolder(run.run_dir, keep=2).steps()[-1] == 8


class Waiting:
    """A wait for the last save, by a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, watched: bool) -> None:
        self.logged: list[Event] = []
        self.clock: Clock = set_clock(monkeypatch, last_save)
        self.commands = CommandQueue()
        self.last = FinalSave(self, self.commands, self.logged.append, lambda: watched)  # type: ignore[arg-type]
        self.last.save(None)  # type: ignore[arg-type]
        monkeypatch.setattr(self.commands, "take", self._take)
        self._arriving: dict[float, cmd.Command] = {}

    def save_final(self, *_: object) -> None:
        """Save nothing."""

    def at(self, seconds: float, command: cmd.Command) -> None:
        """Let a command arrive so many seconds from now."""
        self._arriving[self.clock.now + seconds] = command

    def _take(self, timeout: float) -> cmd.Command | None:
        self.clock.now += timeout
        due = [moment for moment in self._arriving if moment <= self.clock.now]
        return self._arriving.pop(min(due)) if due else None

    def details(self) -> list[str]:
        """The published details of the state."""
        return [event.detail for event in self.logged if isinstance(event, StateChanged) and event.state == "saving"]

    def warnings(self) -> list[str]:
        return [event.message for event in self.logged if isinstance(event, Warned)]


def test_a_stop_abandons_a_slow_save_only_after_the_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, watched=True)
    begun = waiting.clock.now
    waiting.clock.now = begun + 5.0
    assert not waiting.last._given_up()
    assert waiting.logged == []
    for seconds, command, given_up in (
        (5.1, early := cmd.Stop(), False),  # came before the warning
        (5.2, cmd.Evaluate(), False),
        (5.3, late := cmd.Stop(), True),
    ):
        waiting.at(0.0, command)
        waiting.clock.now = begun + seconds
        assert waiting.last._given_up() is given_up
        assert waiting.last.stopped_by is (late if given_up else early)
        assert waiting.warnings() == ["the last save is taking longer than 5 s. Stop again to exit without it"]
        assert waiting.details() == ["still saving"]


@pytest.mark.parametrize("watched", [True, False])
def test_free_space_is_awaited_only_with_a_dashboard(monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    waiting = Waiting(monkeypatch, watched=watched)
    begun = waiting.clock.now
    for _ in range(2):
        assert waiting.last._wait_for_room("it is full") is watched
    assert waiting.clock.now - begun == pytest.approx(30.0 if watched else 0.0, abs=0.3)
    assert waiting.details() == ["not saved yet"] * 2
    assert waiting.warnings() == ["not saved: it is full. Retrying every 15 s. Stop again to exit without saving"]


@pytest.mark.parametrize(("command", "again", "ok"), [(cmd.Stop(), False, True), (cmd.Evaluate(), True, False)])
def test_only_a_stop_ends_the_wait_for_free_space(
    monkeypatch: pytest.MonkeyPatch, command: cmd.Command, again: bool, ok: bool
) -> None:
    waiting = Waiting(monkeypatch, watched=True)
    begun = waiting.clock.now
    waiting.at(3.0, command)
    assert waiting.last._wait_for_room("it is full") is again
    assert waiting.clock.now - begun == pytest.approx(15.0 if again else 3.0, abs=0.3)
    (answer,) = (event for event in waiting.logged if isinstance(event, Acknowledged))
    assert (answer.command_id, answer.ok) == (command.command_id, ok)
    assert waiting.last.stopped_by is (None if again else command)
