"""Input without a key press changes no screen, and no input makes the program fail."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.pty.program import MODULES, PROGRAM
from tests.support.canned import evaluated, opened, started, steps
from tests.support.pseudo_terminal import PseudoTerminal
from tests.support.terminal_input import changes_unpressed, survive
from tests.support.written_runs import write_log
from trainer.run.log.run_events import Finished

pytestmark = pytest.mark.pty


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    finished = Finished(reason="completed", step=100, epoch=1.0, exit_code=0)
    write_log(tmp_path, "done", opened(), started(), steps(1), evaluated(1), finished)
    return tmp_path


def start_viewer(runs_dir: Path, *command: str) -> PseudoTerminal:
    return PseudoTerminal(
        [*PROGRAM, *command, "--runs-dir", str(runs_dir)], env={"PYTHONPATH": MODULES}, cwd=str(runs_dir)
    )


def test_input_without_a_key_press_changes_nothing(runs_dir: Path) -> None:
    with start_viewer(runs_dir, "show", "done") as terminal:
        terminal.wait_for("finished", 30)
        assert list(changes_unpressed(terminal, random.Random(1), 20)) == []
        terminal.send("?")
        terminal.wait_for("esc closes", 10)  # and keys still act


@pytest.mark.parametrize(
    ("command", "shown", "seed"), [("show", "finished", 3), ("runs", "done", 4), ("", "start as it is", 5)]
)
def test_random_input_does_not_make_the_program_fail(runs_dir: Path, command: str, shown: str, seed: int) -> None:
    with start_viewer(runs_dir, *([command] if command else []), *(["done"] if command == "show" else [])) as terminal:
        terminal.wait_for(shown, 30)
        assert survive(terminal, random.Random(seed), 60) == ""
