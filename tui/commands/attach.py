"""`attach [RUN]`: watches and controls a run that another process trains."""

from __future__ import annotations

import argparse

from trainer.errors import ConfigError
from trainer.options import add_runs_dir
from trainer.run.folder.lock import newest_live
from trainer.run.folder.run_dir import find_run
from tui.app.show_in_terminal import look_at
from tui.state.run_port import attached_port, recorded_port
from tui.state.ui_settings import UiSettings
from tui.terminal.private_terminal import is_terminal, wait_for_foreground


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `attach`."""
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="a run directory, a name, or latest (default: the newest active run)"
    )
    parser.add_argument("--read-only", action="store_true", help="view only")
    parser.add_argument("--low-bandwidth", action="store_true", help="redraw every 4 s at most, for a slow link")
    add_runs_dir(parser)


def main(given: argparse.Namespace) -> int:
    """Attach to a run; ConfigError without a terminal, RunError when there is no such run."""
    run_dir = find_run(given.run, given.runs_dir) if given.run else newest_live(given.runs_dir)
    if not is_terminal():
        raise ConfigError(f"attach needs a terminal; for a report: r18-tui show {run_dir.path} --plain")
    wait_for_foreground()
    port = recorded_port(run_dir) if given.read_only else attached_port(run_dir)
    ui = UiSettings(low_bandwidth=given.low_bandwidth)
    return look_at(port, run_dir.path.parent, ui, read_only=given.read_only)
