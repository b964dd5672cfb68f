"""Puts a run on the screen and cleans up after it: terminal, signals, a crash of the dashboard, the last words."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from pathlib import Path

from trainer.failures import log_traceback
from trainer.headless import install_stop_handlers, run_headless
from trainer.launch import TrainingThread
from trainer.open_run import OpenRun
from trainer.run.commands import Unpause
from trainer.run.event_log import LogFollower
from trainer.run.store import RunDir
from trainer.run.text import literal
from trainer.run.view import RunView
from tui.launcher import LauncherLink
from tui.report import plain_report, summary
from tui.settings import UiSettings
from tui.source import LiveSource, Port, live_port, recorded_port
from tui.terminal import PrivateTerminal


def import_dashboard() -> None:
    """Import what the first frame needs, Textual above all: it takes a while and needs to know nothing of the run."""
    with contextlib.suppress(Exception):  # the same import of `_run_app` fails again, where a run's log can take it
        importlib.import_module("tui.app")


def train_in_dashboard(run: OpenRun, remark: str, link: LauncherLink) -> int:
    """Train a run with the dashboard in front of it.

    Args:
        run: Opened by this process.
        remark: For the user.
        link: To the launcher.

    Returns:
        The exit code.
    """
    thread = TrainingThread(run, hold_open=True)
    source = LiveSource(run.run_dir.events, run.log)
    ui = UiSettings(**run.settings.values["ui"])
    terminal = PrivateTerminal(run.run_dir.log)
    _prepare_for_workers()
    install_stop_handlers(thread.stop)
    thread.announce()
    crash, hung_up = _run_app(live_port(thread, source), ui, terminal, link)
    source.close()
    thread.start()  # where the dashboard ended before it could
    if hung_up:
        thread.join()
        return thread.exit_code
    terminal.give_back()
    if crash is not None:
        gc.enable()  # if it was before the first frame
        sys.stdout.write(
            f"the dashboard failed ({type(crash).__name__}); log.txt has the traceback. Training goes on here:\n"
        )
        thread.release()
        thread.commands.send(Unpause())  # nobody could do that any more
        tee = run.log.tee()
        run.log.sync()
        run_headless(thread, tee, view=_folded(run.run_dir))
    thread.join()
    lines = [*([remark] if remark else []), *summary(_folded(run.run_dir), run.run_dir)]
    sys.stdout.write("\n".join(literal(line) for line in lines) + "\n")
    return thread.exit_code


def show_recorded(run_dir: RunDir) -> int:
    """Look at a run that this process does not train."""
    terminal = PrivateTerminal(Path(os.devnull))
    crash, _ = _run_app(recorded_port(run_dir), UiSettings(), terminal, LauncherLink(-1))
    terminal.give_back()
    if crash is not None:
        sys.stderr.write(f"the dashboard failed: {type(crash).__name__}: {crash}\n")
        return 1
    return 0


def print_report(run_dir: RunDir) -> int:
    """Print how a run stands, with its loss drawn in text."""
    sys.stdout.write(literal(plain_report(_folded(run_dir), run_dir), keep="\n"))
    return 0


def _run_app(
    port: Port, ui: UiSettings, terminal: PrivateTerminal, link: LauncherLink
) -> tuple[BaseException | None, bool]:
    """Run the application to its end.

    Returns:
        The exception that ended it, and whether the terminal has gone.
    """
    try:
        from tui.app import DashboardApp

        app = DashboardApp(port, ui, input_fd=terminal.input_fd, launcher_gone=lambda: link.launcher_gone)
        app.run(mouse=ui.mouse)
    except Exception as error:  # noqa: BLE001 - whatever a dashboard does, the run goes on
        log_traceback(port.run_dir, error)
        return error, False
    return app.crash, app.hung_up


def _prepare_for_workers() -> None:
    """Start multiprocessing's resource tracker while standard error still has a descriptor.

    Textual replaces `sys.stderr` by a stream without one, and spawning data workers then fails in the tracker.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def _folded(run_dir: RunDir) -> RunView:
    view = RunView()
    for record in LogFollower(run_dir.events).records():
        view.apply(record)
    return view
