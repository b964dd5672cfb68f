"""Starts the program from an interactive shell in a pseudo-terminal."""

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
"""The installed command, or its module where it is not installed."""
ROOT = str(Path(__file__).parents[2])
MODULES = os.pathsep.join((NARROW, ROOT))  # PYTHONPATH of the program with a narrow network
MANY_EPOCHS = [*TINY, "train.epochs=5000", "checkpoint.every_s=3600"]


def run_of(runs_dir: Path, name: str = "digits") -> RunDir:
    return RunDir(runs_dir / name)


def start(
    runs_dir: Path, *arguments: str, config: str = "digits", prefix: str = "", suffix: str = ""
) -> PseudoTerminal:
    """Start training from an interactive shell, so that job control and foreground groups are real."""
    return in_shell([prefix, *PROGRAM, config, "--runs-dir", str(runs_dir), *arguments, suffix], runs_dir.parent)


def attach(run: RunDir, *arguments: str, columns: int = 120, rows: int = 40) -> PseudoTerminal:
    """Attach to a run from another terminal."""
    return in_shell([*PROGRAM, "attach", str(run.path), *arguments], run.path.parent, columns, rows)


def list_runs(runs_dir: Path, *, columns: int = 120, rows: int = 40) -> PseudoTerminal:
    """Open the list of runs in a terminal."""
    return in_shell([*PROGRAM, "runs", "--runs-dir", str(runs_dir)], runs_dir.parent, columns, rows)


def in_shell(
    typed: list[str], folder: Path, columns: int = 120, rows: int = 40, *, modules: str = MODULES
) -> PseudoTerminal:
    """Type a command, given as words, into an interactive shell in `folder`; `modules` is its PYTHONPATH."""
    return PseudoTerminal(
        ["bash", "--norc", "--noprofile", "-ic", f"{' '.join(typed)}; echo EXIT=$?; sleep 0.5"], columns=columns, rows=rows,
        env={"PYTHONPATH": modules, "PS1": "$ "}, cwd=str(folder),
    )  # fmt: skip


def trainer_of(run: RunDir) -> psutil.Process:
    """The process that trains a run."""
    return psutil.Process(int((read_owner(run) or {})["pid"]))


def code_of(terminal: PseudoTerminal, within_s: float = 60.0) -> int:
    """The exit code that the shell reports, once everything has ended and the terminal is restored."""
    end = time.monotonic() + within_s
    while not (printed := re.search(rb"EXIT=(\d+)", bytes(terminal.raw))):
        assert time.monotonic() < end, terminal.text
        terminal.pump(0.05)
    assert terminal.modes() == termios.ECHO | termios.ICANON | termios.ISIG, "the terminal is not as it was"
    terminal.wait_exit(60)
    return int(printed.group(1))


def launcher_of(terminal: PseudoTerminal) -> psutil.Process:
    """The process that the shell started."""
    for process in psutil.Process(terminal.pid).children(recursive=True):
        if PROGRAM[-1] in process.cmdline():
            return process
    raise AssertionError(terminal.text)
