"""The program as an interactive shell starts it in a pseudo-terminal."""

from __future__ import annotations

import os
import re
import sys
import termios
import time
from pathlib import Path

import psutil

from tests.conftest import NARROW, TINY
from tests.support.pseudo_terminal import PseudoTerminal
from trainer.run.folder.lock import read_owner
from trainer.run.folder.run_dir import RunDir

_INSTALLED = Path(sys.executable).with_name("r18-tui")
PROGRAM = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-m", "tui.cli"]
"""The installed command; where it is not installed, what it calls."""
ROOT = str(Path(__file__).parents[2])
MODULES = os.pathsep.join((NARROW, ROOT))
"""Where Python finds the program, with a narrow network."""
MANY_EPOCHS = [*TINY, "train.epochs=5000", "checkpoint.every_s=3600"]


def run_of(runs_dir: Path, name: str = "digits") -> RunDir:
    return RunDir(runs_dir / name)


def start(
    runs_dir: Path,
    *arguments: str,
    config: str = "digits",
    prefix: str = "",
    suffix: str = "",
    columns: int = 120,
    rows: int = 40,
) -> PseudoTerminal:
    """The program as an interactive shell starts it, so that job control and foreground groups are real."""
    typed = [prefix, *PROGRAM, config, "--runs-dir", str(runs_dir), *arguments, suffix]
    return in_shell(typed, runs_dir.parent, columns, rows)


def attach(run: RunDir, *arguments: str, columns: int = 120, rows: int = 40) -> PseudoTerminal:
    """Another terminal in which the run is attached to."""
    return in_shell([*PROGRAM, "attach", str(run.path), *arguments], run.path.parent, columns, rows)


def list_runs(runs_dir: Path, *, columns: int = 120, rows: int = 40) -> PseudoTerminal:
    """A terminal with the list of runs."""
    return in_shell([*PROGRAM, "runs", "--runs-dir", str(runs_dir)], runs_dir.parent, columns, rows)


def in_shell(
    typed: list[str], folder: Path, columns: int = 120, rows: int = 40, *, modules: str = MODULES
) -> PseudoTerminal:
    """A command that is typed into an interactive shell.

    Args:
        typed: The command's words.
        folder: In which.
        columns: Of the terminal.
        rows: Of the terminal.
        modules: Where Python finds the program.
    """
    return PseudoTerminal(
        ["bash", "--norc", "--noprofile", "-ic", f"{' '.join(typed)}; echo EXIT=$?; sleep 0.5"], columns=columns, rows=rows,
        env={"PYTHONPATH": modules, "PS1": "$ "}, cwd=str(folder),
    )  # fmt: skip


def trainer_of(run: RunDir) -> psutil.Process:
    """The process that trains a run."""
    return psutil.Process(int((read_owner(run) or {})["pid"]))


def code_of(terminal: PseudoTerminal, within_s: float = 60.0) -> int:
    """What the shell saw as exit code, once everything has ended; the terminal must be as it was."""
    end = time.monotonic() + within_s
    while not (found := re.search(rb"EXIT=(\d+)", bytes(terminal.raw))):
        assert time.monotonic() < end, terminal.text
        terminal.pump(0.05)
    assert terminal.modes() == termios.ECHO | termios.ICANON | termios.ISIG, "the terminal is not as it was"
    terminal.wait_exit(60)
    return int(found.group(1))


def launcher_of(terminal: PseudoTerminal) -> psutil.Process:
    """The process that the shell started."""
    for process in psutil.Process(terminal.pid).children(recursive=True):
        if PROGRAM[-1] in process.cmdline():
            return process
    raise AssertionError(terminal.text)
