"""`r18-tui` without arguments: a screen to choose from, or, without a terminal, a list."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trainer.config.loader import shipped_names
from trainer.errors import EXIT_FAILED, EXIT_OK
from trainer.host.safe_text import printable
from trainer.host.self_command import own_command
from trainer.host.standard_streams import write_out
from trainer.host.stop_signals import leave_interrupts_to_the_system
from trainer.run.folder.lock import is_live
from trainer.run.folder.run_dir import list_runs


def choose(runs_dir: Path) -> int:
    """Let the user choose a command, and become it; returns 0 when nothing was chosen, 1 when the screen failed."""
    from tui.app.screens.start_screen import StartApp
    from tui.terminal.terminal_mark import TerminalMark

    app, mark = StartApp(runs_dir), TerminalMark(0)
    command = app.run()
    leave_interrupts_to_the_system()
    mark.remove()
    if app.ended_by is not None:
        sys.excepthook(type(app.ended_by), app.ended_by, app.ended_by.__traceback__)
        return EXIT_FAILED
    if command is None:
        return EXIT_OK
    arguments = own_command("tui.cli", *command)
    os.execv(arguments[0], arguments)  # noqa: S606 - our own interpreter


def print_choices(runs_dir: Path) -> int:
    """Print the available choices."""
    lines = [
        "r18-tui trains ResNet-18 in a live terminal dashboard. Start with: r18-tui digits",
        "",
        "shipped configurations:",
    ]
    lines += [f"  r18-tui {name}" for name in shipped_names()]
    runs = list_runs(runs_dir)
    if runs:
        lines += ["", f"runs in {runs_dir} (newest first):"]
        lines += [f"  {run.path}{'  live' if is_live(run) else ''}" for run in runs[:10]]
        lines.append(f"view one with: r18-tui show {runs[0].path}   return to a live one with: r18-tui attach")
    lines += ["", "all commands: r18-tui --help"]
    write_out("\n".join(printable(line) for line in lines) + "\n")
    return EXIT_OK
