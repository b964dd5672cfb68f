"""`runs`: lists the runs of a folder, on the screen or as text."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from trainer.errors import EXIT_OK
from trainer.host.safe_text import printable
from trainer.host.standard_streams import write_out
from trainer.options import add_runs_dir
from trainer.run.view.overview import RunsFolder
from tui.app.show_in_terminal import look_at
from tui.state.ui_settings import UiSettings
from tui.terminal.private_terminal import is_terminal, wait_for_foreground
from tui.widgets.runs_table import plain_list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `runs`."""
    parser.add_argument("--plain", action="store_true", help="print the list instead")
    add_runs_dir(parser)


def main(given: argparse.Namespace) -> int:
    """Show or print the list."""
    if given.plain or not is_terminal():
        return print_runs(given.runs_dir)
    wait_for_foreground()
    return look_at(None, given.runs_dir, UiSettings())


def print_runs(runs_dir: Path) -> int:
    """Print the status of all runs of a folder."""
    runs = RunsFolder(runs_dir).refresh()
    empty = f"{printable(str(runs_dir))}: no runs here yet; start one with: r18-tui digits"
    write_out(f"{plain_list(runs, time.time()) if runs else empty}\n")
    return EXIT_OK
