"""`show RUN`: opens a run in the dashboard, read-only, or prints it as text, JSON or CSV."""

from __future__ import annotations

import argparse
import io
import sys

from trainer.errors import EXIT_OK
from trainer.host.safe_text import printable
from trainer.host.standard_streams import write_out
from trainer.options import add_runs_dir
from trainer.run.diagnosis.resource_rules import lines_missing
from trainer.run.folder.run_dir import RunDir, find_run
from trainer.run.log.reader import LogReader
from trainer.run.view.run_view import RunView
from tui.state.json_csv import as_json, write_csv
from tui.state.run_port import fold_new_events, recorded_port
from tui.state.summary import plain_report
from tui.state.ui_settings import UiSettings
from tui.terminal.private_terminal import is_terminal, wait_for_foreground


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `show`."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--plain", action="store_true", help="print a report instead")
    printed.add_argument("--json", action="store_true", help="print the status as JSON, for other programs")
    printed.add_argument("--csv", action="store_true", help="print one CSV row per step")
    parser.add_argument("--low-bandwidth", action="store_true", help="redraw every 4 s at most, for a slow link")
    add_runs_dir(parser)


def main(given: argparse.Namespace) -> int:
    """Show or print a run; RunError when there is no such run."""
    run_dir = find_run(given.run, given.runs_dir)
    if given.json or given.csv:
        return print_json(run_dir) if given.json else print_csv(run_dir)
    if given.plain or not is_terminal():
        return print_report(run_dir)
    from tui.app.show_in_terminal import look_at  # not needed for what is printed

    wait_for_foreground()
    return look_at(recorded_port(run_dir), run_dir.path.parent, UiSettings(low_bandwidth=given.low_bandwidth))


def print_report(run_dir: RunDir) -> int:
    """Print the status of a run, with its loss drawn in text."""
    view = fold_new_events(RunView(), LogReader(run_dir.events))
    write_out(printable(plain_report(view, run_dir), keep="\n"))
    return EXIT_OK


def print_json(run_dir: RunDir) -> int:
    """Print the status of a run, as JSON."""
    write_out(as_json(fold_new_events(RunView(), LogReader(run_dir.events)), run_dir))
    return EXIT_OK


def print_csv(run_dir: RunDir) -> int:
    """Print a run step by step."""
    text, view = io.StringIO(), fold_new_events(RunView(), LogReader(run_dir.events))
    write_csv(view, text)
    if view.bad_records:
        sys.stderr.write(f"{lines_missing(view.bad_records)}\n")
    write_out(text.getvalue())
    return EXIT_OK
