"""Shows runs in this terminal until the user leaves, then prints their summary."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from trainer.errors import EXIT_FAILED, EXIT_OK, DiskError
from trainer.host.safe_text import printable
from trainer.host.self_command import own_command
from trainer.host.standard_streams import write_out
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.live_source import LiveSource
from trainer.run.log.run_events import Warned
from trainer.run.status import RunState
from trainer.run.view.run_view import RunView
from trainer.session.error_report import log_traceback
from trainer.session.open_run import OpenRun
from trainer.session.training_thread import TrainingThread
from tui.state.run_port import RunPort, attached_port, caught_up, recorded_port
from tui.state.summary import summary
from tui.state.ui_settings import UiSettings
from tui.terminal.background import go_on_without_terminal, way_back
from tui.terminal.launcher import LauncherLink
from tui.terminal.logout_hazards import hazards
from tui.terminal.private_terminal import PrivateTerminal


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """Outcome of an application; `resume` is the run to resume next, if the user chose one."""

    crash: BaseException | None = None
    detached: bool = False
    resume: RunDir | None = None
    view: RunView = field(default_factory=RunView)


def import_dashboard() -> None:
    """Import Textual and the rest of what the first frame needs; it takes a while and does not depend on the run."""
    with contextlib.suppress(Exception):  # the same import fails again in `_run_app`, where a run's log can record it
        import tui.app.app  # noqa: F401


def train_in_dashboard(run: OpenRun, remark: str, link: LauncherLink) -> int:
    """Train an opened run with its dashboard in the foreground; `remark` is printed at the end. Returns the exit code."""
    thread = TrainingThread(run, hold_open=True)
    source = LiveSource(run.run_dir, run.log)
    ui = UiSettings(**run.settings.values["ui"])
    terminal = PrivateTerminal(run.run_dir.log)
    # No threading.Event: a hang-up may come twice, one handler interrupting the other, and its lock is not reentrant.
    hang_ups: list[int] = []
    thread.take_signals(lambda: hang_ups.append(1))
    thread.announce()
    # At the start: a user who has lost the link to this machine can no longer be warned.
    threading.Thread(target=lambda: _warn_of_hazards(run), name="hazards", daemon=True).start()
    port = RunPort(run_dir=run.run_dir, source=source, control=thread.commands, thread=thread)
    ending = _run_app(port, ui, terminal, lambda: bool(hang_ups) or link.launcher_gone, run.run_dir.path.parent)
    gc.enable()  # in case the dashboard ended before its first frame
    try:
        thread.start()  # in that case, too
        return _after_screen(ending, thread, source, terminal, link, remark)
    except Exception as error:  # noqa: BLE001 - the run continues, whatever fails between the screen and the shell
        log_traceback(run.run_dir, error)
        thread.release()
        thread.join()
        return thread.exit_code


def _warn_of_hazards(run: OpenRun) -> None:
    """Warn of hazards that would end the run if its terminal were lost. Queries other processes, which takes a moment."""
    for hazard in hazards(run.run_dir):
        run.log.publish(Warned(message=f"without its terminal this run would end: {hazard}"))


def _after_screen(
    ending: _Ending,
    thread: TrainingThread,
    source: LiveSource,
    terminal: PrivateTerminal,
    link: LauncherLink,
    remark: str,
) -> int:
    """Continue without a screen, or print the result; returns the exit code."""
    run_dir, crash = thread.run.run_dir, ending.crash
    failed = [f"the dashboard failed ({type(crash).__name__}); log.txt has the traceback"] if crash else []
    view = caught_up(ending.view, source)
    if crash or ending.detached:
        if not (view.finish or view.failure):
            source.close()
            what = "is paused" if view.state is RunState.PAUSED else "continues training"
            return go_on_without_terminal(thread, terminal, link, [*failed, *way_back(run_dir, what)])
        thread.stop()  # the run has ended, and no screen is left to close it
    terminal.give_back()
    thread.join()
    view = caught_up(view, source)
    if thread.refused and not (crash or ending.detached):  # the reason was on the screen, and is printed again
        thread.run.discard()
    with contextlib.suppress(OSError, DiskError):  # the terminal may have gone
        _print_summary(view, run_dir, [*([remark] if remark else []), *failed])
    return thread.exit_code


def attach(run_dir: RunDir, *, read_only: bool, low_bandwidth: bool) -> int:
    """Watch and control a run that another process trains."""
    port = recorded_port(run_dir) if read_only else attached_port(run_dir)
    return _look_at(run_dir, port, UiSettings(low_bandwidth=low_bandwidth), read_only=read_only)


def show_recorded(run_dir: RunDir, *, low_bandwidth: bool) -> int:
    """Show a run that this process does not train."""
    return _look_at(run_dir, recorded_port(run_dir), UiSettings(low_bandwidth=low_bandwidth))


def show_runs(runs_dir: Path) -> int:
    """Show the list of runs; a run can be resumed from there, in this terminal."""
    ending, received = _in_terminal(None, runs_dir, UiSettings())
    code = _exit_code(ending, received)
    if ending.resume is not None and not code:
        _go_on_with(ending.resume)
    return code


def _go_on_with(run_dir: RunDir) -> NoReturn:
    """Replace this process with one that resumes the run."""
    command = own_command("tui.cli", "--resume", str(run_dir.path))
    os.execv(command[0], command)  # noqa: S606 - our own interpreter, and a path as one argument


def _look_at(run_dir: RunDir, port: RunPort, ui: UiSettings, *, read_only: bool = False) -> int:
    """Show a run that this process does not train; its list of runs can resume one."""
    ending, received = _in_terminal(port, run_dir.path.parent, ui, read_only=read_only)
    code = _exit_code(ending, received)
    if ending.resume is not None and not code:
        _go_on_with(ending.resume)
    if not code:
        with contextlib.suppress(OSError, DiskError):  # terminal and run directory may have gone
            _print_summary(caught_up(ending.view, port.source), run_dir)
    return code


def _in_terminal(
    port: RunPort | None, runs_dir: Path, ui: UiSettings, *, read_only: bool = False
) -> tuple[_Ending, list[int]]:
    """Show runs that this process does not train; returns the outcome and the signals that arrived."""
    terminal = PrivateTerminal(Path(os.devnull))
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if number != signal.SIGHUP:
            signal.signal(number, signal.SIG_DFL)  # a second one leaves at once

    # SIGINT too: as an exception it could arrive at any point once the terminal turns keys into signals again.
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receive)
    ending = _run_app(port, ui, terminal, lambda: bool(received), runs_dir, read_only=read_only)
    terminal.give_back()
    return ending, received


def _exit_code(ending: _Ending, received: list[int]) -> int:
    if ending.crash is not None:
        sys.stderr.write(f"the dashboard failed: {type(ending.crash).__name__}: {ending.crash}\n")
        return EXIT_FAILED
    return 128 + received[0] if received else EXIT_OK


def _run_app(
    port: RunPort | None, ui: UiSettings, terminal: PrivateTerminal, hung_up: Callable[[], bool], runs_dir: Path,
    *, read_only: bool = False,
) -> _Ending:  # fmt: skip
    app = None
    try:
        from tui.app.app import DashboardApp

        app = DashboardApp(
            port, ui, runs_dir=runs_dir, input_fd=terminal.input_fd, hung_up=hung_up, read_only=read_only
        )
        app.run(mouse=ui.mouse)
    except Exception as error:  # noqa: BLE001 - whatever a dashboard does, the run continues
        if port is not None:
            log_traceback(port.run_dir, error)
        return _Ending(crash=error, view=RunView() if app is None else app.first_view)
    finally:
        for number in (signal.SIGCONT, signal.SIGTSTP):  # Textual's driver would continue to act on them
            signal.signal(number, signal.SIG_DFL)
    return _Ending(crash=app.ended_by, detached=app.detached, resume=app.runs.resume, view=app.first_view)


def _print_summary(view: RunView, run_dir: RunDir, remarks: Sequence[str] = ()) -> None:
    lines = [*remarks, *summary(view, run_dir)]
    write_out("\n".join(printable(line) for line in lines) + "\n")
