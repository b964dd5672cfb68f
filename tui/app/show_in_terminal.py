"""Shows runs in this terminal until the user leaves, then prints their summary, or lets them continue without a terminal."""

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
from tui.state.run_port import RunPort, fold_new_events
from tui.state.summary import summary
from tui.state.ui_settings import UiSettings
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


def train_in_background(run: OpenRun, remark: str, link: LauncherLink) -> int:
    """Train an opened run that never had a screen; `remark` is for the user. Returns the exit code."""
    thread = TrainingThread(run, hold_open=False)
    terminal = PrivateTerminal(run.run_dir.log)
    thread.take_signals()
    thread.start()
    lines = [*([remark] if remark else []), *_attach_instructions(run.run_dir, "trains in the background")]
    return _continue_in_background(thread, terminal, link, lines)


def _continue_in_background(
    thread: TrainingThread, terminal: PrivateTerminal, link: LauncherLink, farewell: Sequence[str]
) -> int:
    """Release the terminal, have the launcher print `farewell`, and continue training; returns the exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is no terminal left whose end could concern us
    thread.release()
    terminal.release()
    link.farewell("".join(f"{printable(line)}\n" for line in farewell))
    thread.join()
    return thread.exit_code


def _attach_instructions(run_dir: RunDir, what: str) -> list[str]:
    """One line with the state of the run and how to see it again; more lines only for hazards."""
    back = f"{run_dir.name} {what} (process {os.getpid()}); attach with: {run_dir.attach_command()}"
    return [back, *(f"warning: {hazard}" for hazard in hazards(run_dir))]


def _warn_of_hazards(run: OpenRun) -> None:
    """Warn of hazards that would end the run if its terminal were lost. Queries other processes, which takes a moment."""
    for hazard in hazards(run.run_dir):
        run.log.publish(Warned(message=f"without its terminal this run would end: {hazard}"))


def _after_screen(
    ending: _Ending, thread: TrainingThread, source: LiveSource, terminal: PrivateTerminal, link: LauncherLink, remark: str
) -> int:  # fmt: skip
    """Continue without a screen, or print the result; returns the exit code."""
    run_dir, crash = thread.run.run_dir, ending.crash
    failed = [f"the dashboard failed ({type(crash).__name__}); log.txt has the traceback"] if crash else []
    view = fold_new_events(ending.view, source)
    if crash or ending.detached:
        if not (view.finish or view.failure):
            source.close()
            what = "is paused" if view.state is RunState.PAUSED else "continues training"
            return _continue_in_background(thread, terminal, link, [*failed, *_attach_instructions(run_dir, what)])
        thread.stop()  # the run has ended, and no screen is left to close it
    terminal.restore()
    thread.join()
    view = fold_new_events(view, source)
    if thread.refused and not (crash or ending.detached):  # the reason was on the screen, and is printed again
        thread.run.discard()
    with contextlib.suppress(OSError, DiskError):  # the terminal may have gone
        _print_summary(view, run_dir, [*([remark] if remark else []), *failed])
    return thread.exit_code


def look_at(port: RunPort | None, runs_dir: Path, ui: UiSettings, *, read_only: bool = False) -> int:
    """Show a run that this process does not train, or all runs if `port` is None; returns the exit code, or resumes a run."""
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
    terminal.restore()
    if ending.crash is not None:
        sys.stderr.write(f"the dashboard failed: {type(ending.crash).__name__}: {ending.crash}\n")
        return EXIT_FAILED
    if received:
        return 128 + received[0]
    if ending.resume is not None:
        command = own_command("tui.cli", "--resume", str(ending.resume.path))
        os.execv(command[0], command)  # noqa: S606 - our own interpreter, and a path as one argument
    if port is not None:
        with contextlib.suppress(OSError, DiskError):  # terminal and run directory may have gone
            _print_summary(fold_new_events(ending.view, port.source), port.run_dir)
    return EXIT_OK


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
