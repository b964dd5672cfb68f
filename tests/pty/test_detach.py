"""Losing a terminal and attaching again: the run continues in the same process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY, FolderMaker
from tests.pty.program import MANY_EPOCHS, ROOT, attach, code_of, in_shell, launcher_of, run_of, start, trainer_of
from tests.support.pseudo_terminal import PseudoTerminal
from tests.support.running import events_of, view_of, wait_for
from trainer.run.folder.lock import is_live
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Acknowledged
from trainer.run.status import RunState
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S

pytestmark = pytest.mark.pty


def assert_training_continues(run: RunDir, more: int = 3) -> None:
    """Assert that training continues."""
    step = view_of(run).step
    wait_for(run, lambda view: view.step >= step + more)


def stop(run: RunDir) -> None:
    """End a run in the background and assert that it has saved its last step."""
    trainer = trainer_of(run)
    trainer.terminate()
    assert not psutil.wait_procs([trainer], timeout=60)[1]
    assert_saved(run)


def assert_saved(run: RunDir) -> None:
    """Assert that a run has ended by SIGTERM and saved its last step."""
    view = view_of(run)
    assert view.finish is not None
    assert view.finish.reason == "SIGTERM"
    assert view.checkpoints[-1].step == view.step
    assert not is_live(run)


def test_d_detaches_and_the_same_process_trains_on(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        trainer = trainer_of(run)
        terminal.send("d")
        assert code_of(terminal) == 0
        assert f"(process {trainer.pid}); attach with: r18-tui attach" in terminal.text.replace("\n", "")
        drawn, left, _ = terminal.raw.partition(b"\x1b[?1049l")
        assert left
        assert b"\x1b[2J" in drawn[-100:], "nothing is left for tmux to put into the scrollback"
    assert_training_continues(run)
    assert trainer_of(run) == trainer
    view = view_of(run)
    assert [mark.text for mark in view.marks if mark.kind == "note"] == ["detached"]
    assert view.opened.resume is False  # type: ignore[union-attr]
    assert list(view.train_loss.x) == list(range(1, view.step + 1)), "no step is missing"
    stop(run)


def test_two_terminals_attach_steer_and_see_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--detach", *MANY_EPOCHS) as terminal:
        assert code_of(terminal) == 0
        assert "trains in the background" in terminal.text
    with attach(run) as one, attach(run, columns=80, rows=24) as two:
        for terminal in (one, two):
            terminal.wait_for("attached", 30)
            terminal.wait_for(r"● training", 90)
        terminal.wait_for(r"step [1-9]", 60)
        one.send("p")
        for terminal in (one, two):
            terminal.wait_for("● paused", 30)
        two.send("c")
        for terminal in (one, two):
            terminal.wait_for("saved step-", 30)
        two.send("p")
        one.wait_for("● training", 30)
        one.send("q")
        one.wait_for("Leave this run")
        one.drain(2 * KEY_REPEAT_DELAY_S)  # a held key chooses nothing
        one.send("q")  # the first choice of an attached terminal is to leave
        assert code_of(one) == 0
        assert "come back" in one.text
        assert_training_continues(run)
        two.send("qs")
        two.wait_for("● stopped", 60)
        two.send("q")
        assert code_of(two) == 0
    view = view_of(run)
    assert view.finish is not None
    assert (view.finish.reason, view.finish.exit_code) == ("stopped", 0)
    assert view.checkpoints[-1].step == view.step


def test_a_read_only_screen_sends_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        with attach(run, "--read-only") as watcher:
            watcher.wait_for("read-only", 30)
            watcher.wait_for("● training", 30)
            watcher.send("p")
            watcher.wait_for("view only", 10)
            watcher.send("q")
            assert code_of(watcher) == 0
        assert_training_continues(run)


def test_a_killed_trainer_shows_as_lost_with_the_resume_command(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--detach", *MANY_EPOCHS) as terminal:
        assert code_of(terminal) == 0
    wait_for(run, lambda view: view.step > 3)
    with attach(run) as watcher:
        watcher.wait_for("● training", 30)
        trainer_of(run).kill()
        watcher.wait_for("● lost", 10)
        watcher.wait_for(r"last event .* ago; resume with: r18-tui --resume", 10)
        watcher.send("p")
        watcher.wait_for("this run is not active", 10)
        watcher.send("q")
        assert code_of(watcher) == 0


def test_a_lost_run_is_resumed_from_its_screen(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--detach", *MANY_EPOCHS) as terminal:
        assert code_of(terminal) == 0
    wait_for(run, lambda view: view.step > 3)
    trainer_of(run).kill()
    with attach(run) as watcher:
        watcher.wait_for("● lost", 10)
        watcher.send("r")
        watcher.wait_for(r"digits +lost", 10)
        watcher.drain(2 * KEY_REPEAT_DELAY_S)
        watcher.send("r")
        watcher.wait_for("● training", 60)
        wait_for(run, lambda view: any(mark.kind == "resume" for mark in view.marks) and view.step > 0)
        watcher.send("d")
        assert code_of(watcher) == 0
    stop(run)


def test_a_resume_of_a_live_run_is_refused_with_the_attach_command(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--detach", *MANY_EPOCHS) as terminal:
        assert code_of(terminal) == 0
    wait_for(run, lambda view: view.step > 0)
    with start(run.path.parent, "--resume", str(run.path), config="") as terminal:
        assert code_of(terminal) == 2
        assert "already active" in terminal.text
        assert "r18-tui attach" in terminal.text.replace("\n", "")
    stop(run)


@pytest.mark.parametrize("prefix", ["", "setsid -w"], ids=["SIGHUP", "end of input alone"])
def test_a_closed_terminal_leaves_the_run_training(tmp_path: Path, prefix: str) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS, prefix=prefix) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        trainer = trainer_of(run)
        kept = {trainer, *trainer.children(recursive=True)}  # multiprocessing's resource tracker
        in_front = set(psutil.Process(terminal.pid).children(recursive=True)) - kept
        terminal.hang_up()
        assert not psutil.wait_procs(list(in_front), timeout=30)[1], "only the trainer may stay"
    assert_training_continues(run)
    assert [mark.text for mark in view_of(run).marks if mark.kind == "note"] == ["the terminal was lost"]
    assert trainer_of(run) == trainer
    descriptors = {Path(f"/proc/{trainer.pid}/fd/{fd}").resolve() for fd in range(3)}
    assert descriptors == {Path(os.devnull), run.log.resolve()}
    stop(run)


def test_a_closed_terminal_leaves_a_run_with_workers_training(tmp_path: Path, make_folder: FolderMaker) -> None:
    run = run_of(tmp_path / "runs")
    data = ["data.kind=imagefolder", f"data.root={make_folder()}", "data.cache=none", "data.workers=2"]
    with start(run.path.parent, *MANY_EPOCHS, *data, "data.crop_pct=1.0") as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        terminal.hang_up()
        time.sleep(3)
    assert_training_continues(run, 20)
    assert view_of(run).state in (RunState.TRAINING, RunState.EVALUATING)
    stop(run)


def test_a_signal_delivered_to_another_thread_ends_a_detached_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--detach", *MANY_EPOCHS) as terminal:
        assert code_of(terminal) == 0
    assert_training_continues(run)
    trainer = trainer_of(run)
    other = next(thread.id for thread in trainer.threads() if thread.id != trainer.pid)
    os.kill(other, signal.SIGTERM)  # for the process, but delivered to that thread
    assert not psutil.wait_procs([trainer], timeout=60)[1]
    assert_saved(run)


def test_a_background_job_waits_for_the_foreground_and_ctrl_z_detaches(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    job = "& wait %1; jobs; fg >/dev/null"
    with start(run.path.parent, *MANY_EPOCHS, suffix=job) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        assert terminal.raw.find(b"Stopped") in range(terminal.raw.find(b"\x1b[?1049h"))
        terminal.send("\x1a")
        assert code_of(terminal) == 0
        assert "attach with" in terminal.text
    assert_training_continues(run)
    stop(run)


def test_a_killed_launcher_leaves_the_run_training(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        launcher_of(terminal).kill()
        assert code_of(terminal) == 137
        end = time.monotonic() + 10
        while b"\x1b[?1049l" not in terminal.raw:
            assert time.monotonic() < end, "the screen was not left"
            terminal.pump(0.1)
    assert_training_continues(run)
    stop(run)


def test_a_hang_up_signal_detaches_with_the_attach_command(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        launcher_of(terminal).send_signal(signal.SIGHUP)
        assert code_of(terminal) == 0
        assert "attach with" in terminal.text
    assert_training_continues(run)
    stop(run)


def test_an_unread_terminal_does_not_stop_training_and_recovers(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        step = view_of(run).step
        time.sleep(8)  # nothing reads the pseudo-terminal, whose buffer fills after a few kilobytes
        later = view_of(run).step
        assert later > step
        terminal.wait_for(rf"step ({'|'.join(f'{n:,}' for n in range(later, later + 4000))})/", 30)
        terminal.send("qs")
        assert code_of(terminal) == 0


def test_closing_an_unread_terminal_leaves_the_run_training(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        time.sleep(8)  # until drawing blocks on the full buffer
        terminal.hang_up()
    assert_training_continues(run)
    stop(run)


def test_a_continued_process_handles_each_key_once_and_restores_the_terminal(tmp_path: Path) -> None:
    """SIGCONT comes with a hang-up and with `fg`, also when nothing was stopped."""
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        for _ in range(3):
            launcher_of(terminal).send_signal(signal.SIGCONT)
            time.sleep(0.5)
            terminal.wait_for("● training", 10)
        for word in ("paused", "training", "paused"):
            terminal.send("p")
            terminal.wait_for(f"● {word}", 10)
        terminal.send("qs")
        assert code_of(terminal) == 0
    assert [event.command for event in events_of(run, Acknowledged)][:3] == ["pause", "unpause", "pause"]


def start_with_broken_header(tmp_path: Path, condition: str, *arguments: str) -> PseudoTerminal:
    """Start the program, with the whole network and a header that fails once `condition` on `view` holds."""
    script = tmp_path / "breaking.py"
    script.write_text(
        "import sys, tui.cli; import tui.app.show_in_terminal as r; original = r._run_app\n"
        "def broken(*given):\n"
        "    from tui.widgets.header import Header\n"
        "    draw = Header.rows_for\n"
        "    def rows_for(self, scene, w, h):\n"
        "        view = scene.view\n"
        f"        if {condition}: raise ValueError('a broken pane')\n"
        "        return draw(self, scene, w, h)\n"
        "    Header.rows_for = rows_for\n"
        "    return original(*given)\n"
        "r._run_app = broken\n"
        "sys.exit(tui.cli.main(sys.argv[1:]))\n"
    )
    program = [sys.executable, str(script), "digits", "--runs-dir", str(tmp_path / "runs")]
    return in_shell([*program, *arguments, "data.batch_size=64"], tmp_path, modules=ROOT)


def test_a_crash_of_the_dashboard_leaves_the_run_training(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start_with_broken_header(tmp_path, "view.step >= 1", *TINY, "train.epochs=2") as terminal:
        terminal.wait_for("the dashboard failed", 120)
        assert code_of(terminal) == 0
        assert "continues training" in terminal.text
        assert "attach with" in terminal.text
        assert "Traceback" not in terminal.text
        wait_for(run, lambda view: view.finish is not None)
    assert "a broken pane" in run.log.read_text()
    assert view_of(run).step == view_of(run).total_steps


def test_a_crash_after_the_end_prints_the_result(tmp_path: Path) -> None:
    with start_with_broken_header(tmp_path, "view.finish", *TINY, "train.epochs=1") as terminal:
        assert code_of(terminal, 120) == 0
        assert "the dashboard failed" in terminal.text
        assert "completed at step" in terminal.text
        assert "come back" not in terminal.text
    assert not is_live(run_of(tmp_path / "runs"))


def test_a_crash_of_a_paused_dashboard_leaves_the_run_paused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start_with_broken_header(tmp_path, "view.state.value == 'paused'", *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        terminal.send("p")
        terminal.wait_for("is paused", 60)
        assert code_of(terminal) == 0
    with attach(run) as watcher:
        watcher.wait_for("● paused", 30)
        watcher.send("p")
        watcher.wait_for("● training", 30)
    stop(run)
