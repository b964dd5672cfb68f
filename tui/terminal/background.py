"""A run that continues without a terminal: the same process, at the same step, only without a screen."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from trainer.host.safe_text import printable
from trainer.run.folder.run_dir import RunDir
from trainer.session.open_run import OpenRun
from trainer.session.training_thread import TrainingThread
from tui.terminal.launcher import LauncherLink
from tui.terminal.logout_hazards import hazards
from tui.terminal.private_terminal import PrivateTerminal


def train_in_background(run: OpenRun, remark: str, link: LauncherLink) -> int:
    """Train an opened run that never had a screen; `remark` is for the user. Returns the exit code."""
    thread = TrainingThread(run, hold_open=False)
    terminal = PrivateTerminal(run.run_dir.log)
    thread.take_signals()
    thread.start()
    lines = [remark] if remark else []
    return go_on_without_terminal(thread, terminal, link, [*lines, *way_back(run.run_dir, "trains in the background")])


def go_on_without_terminal(
    thread: TrainingThread, terminal: PrivateTerminal, link: LauncherLink, farewell: Sequence[str]
) -> int:
    """Release the terminal, have the launcher print `farewell`, and continue training; returns the exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is no terminal left whose end could concern us
    thread.release()
    terminal.let_go()
    link.farewell("".join(f"{printable(line)}\n" for line in farewell))
    thread.join()
    return thread.exit_code


def way_back(run_dir: RunDir, what: str) -> list[str]:
    """One line with the state of the run and how to see it again; more lines only for hazards."""
    back = f"{run_dir.name} {what} (process {os.getpid()}); attach with: {run_dir.attach_command()}"
    return [back, *(f"warning: {hazard}" for hazard in hazards(run_dir))]
