"""The list of runs and the start screen in a real terminal, where one process replaces another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pty.program import MANY_EPOCHS, PROGRAM, code_of, in_shell, list_runs, run_of, start, trainer_of
from tests.support.running import view_of, wait_for
from trainer.run.folder.run_dir import create_run

pytestmark = pytest.mark.pty


def test_a_stopped_run_is_resumed_from_the_list_in_the_same_terminal(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        terminal.send("q")
        terminal.wait_for("Leave this run", 10)
        terminal.send("s")
        assert code_of(terminal) == 0
    stopped = view_of(run).step
    with list_runs(run.path.parent) as terminal:
        terminal.wait_for(r"digits +stopped", 30)  # the path in the title has the word "stopped", too
        terminal.send("r")
        terminal.wait_for("● training", 60)
        wait_for(run, lambda view: view.step > stopped)
        assert view_of(run).finish is None
        trainer = trainer_of(run)
        terminal.send("q")
        terminal.wait_for("Leave this run", 10)
        terminal.send("s")
        assert code_of(terminal) == 0
        assert not trainer.is_running()
    assert b"\x1b[?1049l" in terminal.raw


def test_a_live_run_is_opened_from_the_list_and_paused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--detach", *MANY_EPOCHS) as terminal:
        assert code_of(terminal) == 0
    wait_for(run, lambda view: view.step > 0)
    with list_runs(run.path.parent, columns=80, rows=24) as terminal:
        terminal.wait_for("1 in training", 30)
        terminal.send("\r")
        terminal.wait_for(r"attached.*training", 30)
        terminal.send("p")
        wait_for(run, lambda view: view.state.value == "paused")
        trainer_of(run).terminate()
        terminal.wait_for("● stopped", 30)
        terminal.send("q")
        terminal.wait_for("0 in training", 30)
        terminal.send("q")
        assert code_of(terminal) == 0


def test_the_start_screen_opens_the_list_of_runs(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    create_run(runs_dir, "photos").events.touch()
    with in_shell([*PROGRAM, "--runs-dir", str(runs_dir)], tmp_path) as terminal:
        terminal.wait_for("start as it is", 30)
        terminal.send("\x1b[F")  # end: all runs
        terminal.wait_for("Every run of the folder", 10)
        terminal.send("\r")
        terminal.wait_for("0 in training", 30)
        terminal.send("q")
        assert code_of(terminal) == 0
    with in_shell([*PROGRAM, "--runs-dir", str(runs_dir)], tmp_path) as terminal:
        terminal.wait_for("start as it is", 30)
        terminal.send("q")
        assert code_of(terminal) == 0
