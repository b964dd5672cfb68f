"""Puts a run on the screen and cleans up after it: terminal, signals, a crash of the dashboard, the last words."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.errors import EXIT_FAILED, EXIT_OK
from trainer.failures import log_traceback
from trainer.headless import install_stop_handlers
from trainer.launch import TrainingThread
from trainer.open_run import OpenRun
from trainer.run.event_log import LogFollower
from trainer.run.status import RunState
from trainer.run.store import RunDir
from trainer.run.text import literal
from trainer.run.view import RunView
from tui.background import go_on_without_terminal, way_back
from tui.launcher import LauncherLink
from tui.report import plain_report, summary
from tui.settings import UiSettings
from tui.source import LiveSource, Port, attached_port, live_port, recorded_port
from tui.terminal import PrivateTerminal

_SYNC_S = 5.0
"""Longest wait for the log before it is read: with a full disk it never gets there."""


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
    # No threading.Event: a hang-up may come twice, one handler interrupting the other, and its lock is not reentrant.
    hang_ups: list[int] = []
    install_stop_handlers(thread.stop, lambda: hang_ups.append(1))
    thread.announce()
    crash, detached = _run_app(live_port(thread, source), ui, terminal, lambda: bool(hang_ups) or link.launcher_gone)
    gc.enable()  # where the dashboard ended before its first frame
    source.close()
    thread.start()  # likewise
    failed = [f"the dashboard failed ({type(crash).__name__}); log.txt has the traceback"] if crash else []
    run.log.sync(_SYNC_S)
    view = _folded(run.run_dir)
    if (crash or detached) and not (view.finish or view.failure):
        what = "is paused" if view.state is RunState.PAUSED else "trains on"
        return go_on_without_terminal(thread, terminal, link, [*failed, *way_back(run.run_dir, what)])
    if crash or detached:
        thread.stop()  # a run that has ended and that nobody can leave any more
    terminal.give_back()
    thread.join()
    with contextlib.suppress(OSError):  # the terminal may have gone
        _print_summary(run.run_dir, [*([remark] if remark else []), *failed])
    return thread.exit_code


def attach(run_dir: RunDir, *, read_only: bool) -> int:
    """Watch, and steer, a run that another process trains."""
    return _look_at(run_dir, recorded_port(run_dir) if read_only else attached_port(run_dir))


def show_recorded(run_dir: RunDir) -> int:
    """Look at a run that this process does not train."""
    return _look_at(run_dir, recorded_port(run_dir))


def _look_at(run_dir: RunDir, port: Port) -> int:
    """Put a run of another process, or of nobody, on the screen."""
    terminal = PrivateTerminal(Path(os.devnull))
    received: list[int] = []
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    crash, _ = _run_app(port, UiSettings(), terminal, lambda: bool(received))
    terminal.give_back()
    if crash is not None:
        sys.stderr.write(f"the dashboard failed: {type(crash).__name__}: {crash}\n")
        return EXIT_FAILED
    if received:
        return 128 + received[0]
    _print_summary(run_dir)
    return EXIT_OK


def print_report(run_dir: RunDir) -> int:
    """Print how a run stands, with its loss drawn in text."""
    sys.stdout.write(literal(plain_report(_folded(run_dir), run_dir), keep="\n"))
    return 0


def _run_app(
    port: Port, ui: UiSettings, terminal: PrivateTerminal, hung_up: Callable[[], bool]
) -> tuple[BaseException | None, bool]:
    """Run the application to its end.

    Returns:
        The exception that ended it, and whether the run was to go on without it.
    """
    try:
        from tui.app import DashboardApp

        app = DashboardApp(port, ui, input_fd=terminal.input_fd, hung_up=hung_up)
        app.run(mouse=ui.mouse)
    except Exception as error:  # noqa: BLE001 - whatever a dashboard does, the run goes on
        log_traceback(port.run_dir, error)
        return error, False
    return app.crash, app.detached


def _prepare_for_workers() -> None:
    """Start multiprocessing's resource tracker while standard error still has a descriptor.

    Textual replaces `sys.stderr` by a stream without one, and spawning data workers then fails in the tracker.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def _print_summary(run_dir: RunDir, remarks: Sequence[str] = ()) -> None:
    lines = [*remarks, *summary(_folded(run_dir), run_dir)]
    sys.stdout.write("\n".join(literal(line) for line in lines) + "\n")
    sys.stdout.flush()


def _folded(run_dir: RunDir) -> RunView:
    view = RunView()
    for record in LogFollower(run_dir.events).records():
        view.apply(record)
    return view
