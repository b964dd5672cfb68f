"""`doctor [CONFIG]`: everything that could prevent a run from starting or continuing, each with its remedy."""

from __future__ import annotations

import argparse
import locale
import os
import shutil
import sys
from collections.abc import Iterator

from trainer.errors import EXIT_FAILED, EXIT_OK, R18Error
from trainer.host.health import Check
from trainer.host.safe_text import printable
from trainer.options import add_runs_dir
from trainer.run.folder.run_dir import RunDir
from tui.terminal.logout_hazards import hazards
from tui.terminal.private_terminal import is_terminal

_SMALLEST = (80, 24)
_SIGNS = {"good": "ok  ", "warning": "warn", "bad": "BAD "}
_WIDTH = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor`."""
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="also check what this configuration needs")
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run all checks, including those of a configuration if one is given; returns 0 when a run can start, 1 when not."""
    from trainer.config.loader import load_config
    from trainer.host.progress import progress_bar

    bad: list[Check] = []

    def report(check: Check) -> None:
        sys.stdout.write(f"{_SIGNS[check.state]} {check.name:{_WIDTH}} {printable(check.found, keep=chr(10))}\n")
        if check.remedy:
            sys.stdout.write(f"     {'':{_WIDTH}} -> {printable(check.remedy)}\n")
        sys.stdout.flush()
        if check.state == "bad":
            bad.append(check)

    try:
        from trainer.commands import training_checks as checks
    except ImportError as error:
        sys.stdout.write(f"{_SIGNS['bad']} PyTorch: cannot be imported: {printable(str(error))}\n")
        sys.stdout.write("     reinstall it: pip install --force-reinstall torch torchvision\n")
        return EXIT_FAILED
    config = None
    if arguments.config is not None:
        try:
            resolved = load_config(arguments.config, arguments.overrides)
            config = resolved.config
            report(Check("configuration", "good", resolved.source))
        except R18Error as error:
            remedy = "docs/configuration.md has all keys"
            report(Check("configuration", "bad", str(error), remedy))
    with progress_bar() as progress:
        for check in checks.run_checks(arguments.runs_dir, config, progress):
            report(check)
    for check in _terminal_checks(RunDir(arguments.runs_dir / "RUN")):
        report(check)
    what = "a run" if arguments.config is None else printable(arguments.config)
    outcome = f"cannot start: {', '.join(check.name for check in bad)}" if bad else "can start"
    sys.stdout.write(f"\n{what} {outcome}\n")
    return EXIT_FAILED if bad else EXIT_OK


def _terminal_checks(run: RunDir) -> Iterator[Check]:
    """Checks of what the dashboard needs, and of what would end a run together with its terminal."""
    size = shutil.get_terminal_size()
    found = f"{os.environ.get('TERM', 'unknown')}, {size.columns}x{size.lines}, {locale.getpreferredencoding(False)}"
    remedy = ""
    if not is_terminal():
        found = "stdin/stdout is not a terminal"
        remedy = "a run then prints plain lines; watch it from a terminal with: r18-tui attach"
    elif (size.columns, size.lines) < _SMALLEST or size.lines < _SMALLEST[1]:
        remedy = "80x24 shows all panes; larger shows more"
    elif "utf" not in locale.getpreferredencoding(False).lower():
        remedy = "curves are finer with UTF-8: export LANG=C.UTF-8"
    yield Check("terminal", "warning" if remedy else "good", found, remedy)
    dangers = hazards(run)
    for danger in dangers:
        found, _, remedy = danger.partition(": ")
        yield Check("logout", "warning", found, remedy)
    if not dangers:
        yield Check(name="logout", state="good", found="a run in the background continues after you log out")
