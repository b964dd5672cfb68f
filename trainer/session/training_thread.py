"""Torch-free start of a session, so that a dashboard is on the screen while the training thread imports PyTorch."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.errors import EXIT_FAILED, EXIT_OK, R18Error, exit_code_of
from trainer.host.stop_signals import install_stop_handlers
from trainer.run.control.commands import CommandQueue, SaveCheckpoint, Stop, acknowledgement
from trainer.run.log.run_events import Failed, Heartbeat, Opened, Warned
from trainer.run.status import HEARTBEAT_S
from trainer.session.error_report import call_with_timeout, explain, log_traceback
from trainer.session.open_run import OpenRun

if TYPE_CHECKING:
    from trainer.run.control.server import ControlServer


_DISK_S = 5.0  # longest wait in seconds for a disk that may be the cause of the failure
_HEARTBEAT_WAIT_S = 5.0  # longest wait in seconds for a heartbeat: an unresponsive share could block it for ever
_SIGNALS_S = 0.25  # longest sleep in seconds of the main thread, which alone runs Python's signal handlers


class TrainingThread:
    """Trains an opened run on a plain thread: a worker of the dashboard would end with its screen.

    `start`, `stop` and `join` are called by the main thread; everything else happens on the training thread.
    """

    def __init__(self, run: OpenRun, *, hold_open: bool) -> None:
        self.run = run
        self.commands = CommandQueue()
        self.exit_code = EXIT_FAILED  # valid once the thread has ended
        self.refused = False  # whether a new run could not start, for a reason that the user can act on
        self._control: ControlServer | None = None
        # No threading.Event: `stop` may interrupt itself in a signal handler, and a lock is not reentrant.
        self._hold_open = hold_open
        self._ended = threading.Event()
        self._announced = False
        self._begun = False
        self._last_warning = ""
        # Not a daemon: the interpreter must not tear torch down under a running step.
        self._thread = threading.Thread(target=self._main, name="training")
        self._heartbeat_thread = threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True)

    def announce(self) -> None:
        """Publish the first event, which names the run; `start` does so if this was not called."""
        if self._announced:
            return
        self._announced = True
        run = self.run
        run.log.publish(
            Opened(
                run=run.run_dir.name, directory=str(run.run_dir.path), pid=os.getpid(), host=socket.gethostname(),
                resume=run.resume, config=run.settings.values,
            )
        )  # fmt: skip

    def start(self) -> None:
        """Start training; if the thread cannot be started, the run has failed. A second call does nothing."""
        self.announce()
        if self._begun:
            return
        self._begun = True
        try:
            self._open_control_socket()
            self._heartbeat_thread.start()
            self._thread.start()
        except Exception as error:  # noqa: BLE001 - no room for another thread, for example
            self.exit_code = self._fail(error)
            self._close()

    @property
    def alive(self) -> bool:
        """Whether the run is waiting to be trained, being trained, or held open for more commands."""
        return not self._begun or self._thread.is_alive()

    def stop(self, reason: str = "stopped", exit_code: int = EXIT_OK) -> None:
        """Ask the trainer to save and end; a signal's code also ends a run that is held open. Safe in a signal handler."""
        if exit_code != EXIT_OK:
            self.release()
        self.commands.send(Stop(reason=reason, exit_code=exit_code))

    def take_signals(self, hang_up: Callable[[], None] | None = None) -> None:
        """Let signals stop and save this run; `hang_up`, called at SIGHUP instead, must be safe in a signal handler."""
        install_stop_handlers(
            self.stop,
            hang_up,
            save=lambda name: self.commands.send(SaveCheckpoint(reason=name)),
            stop_on=self.run.settings.values["run"]["stop_on_signals"],
        )

    def release(self) -> None:
        """Do not hold the thread open for commands after the run's end: the screen was closed."""
        self._hold_open = False

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread while signals are handled; whether it has ended."""
        # In short waits: a starting thread may receive a signal in place of the main thread, and nothing would wake a long one.
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self._thread.is_alive() and (left := end - time.monotonic()) > 0:
            self._thread.join(min(left, _SIGNALS_S))
        return not self._thread.is_alive()

    def _main(self) -> None:
        session: Any = None
        try:
            from trainer.session.session import TrainingSession  # here, so that nothing before this line needs PyTorch

            session = TrainingSession(self.run, self.commands, hold_open=lambda: self._hold_open)
            self.exit_code = session.run()
        except BaseException as error:  # noqa: BLE001 - the thread's last line of defence: a state, not a dead screen
            began = self.run.resume or (session is not None and session.began)
            self.refused = isinstance(error, R18Error) and not began
            self.exit_code = self._fail(error)
            self._wait_after_failure()
        finally:
            self._close()

    def _close(self) -> None:
        self._ended.set()
        try:
            if self._heartbeat_thread.ident is not None:
                self._heartbeat_thread.join(_HEARTBEAT_WAIT_S)
            if self._control is not None:
                self._control.close()
        finally:
            self.run.close()

    def _fail(self, error: BaseException) -> int:
        # The disk may be the cause, and a call to a disk that does not respond never returns.
        checkpoint = call_with_timeout(_DISK_S, self._last_checkpoint, "")
        code = exit_code_of(error)
        self.run.log.publish(
            Failed(
                error=explain(error), exit_code=code, checkpoint=checkpoint,
                resume=self.run.run_dir.resume_command() if checkpoint else "",
            )
        )  # fmt: skip
        call_with_timeout(_DISK_S, lambda: log_traceback(self.run.run_dir, error), None)
        return code

    def _last_checkpoint(self) -> str:
        """Name of the newest checkpoint, whatever `latest` points to; empty when there is none."""
        return max((path.name for path in self.run.run_dir.checkpoints.glob("step-*.safetensors")), default="")

    def _wait_after_failure(self) -> None:
        # The dashboard keeps the failure on the screen; only leaving it ends the run's process.
        self.run.lock.publish_facts(ended=True)
        while self._hold_open and not isinstance(command := self.commands.take(timeout=0.5), Stop):
            if command is not None:
                self.run.log.publish(acknowledgement(command, "the run has failed"))

    def _open_control_socket(self) -> None:
        """Let the user's other processes steer the run, if a socket can be opened."""
        from trainer.run.control.server import ControlServer  # not before the first frame

        try:
            self._control = ControlServer(self.commands)
        except OSError as error:
            self.run.log.publish(Warned(message=f"other terminals can watch this run but not control it: {error}"))
        else:
            self.run.lock.publish_facts(socket=str(self._control.path))

    def _heartbeat_loop(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self.run.log.publish(Heartbeat())
            self._repair_directory()

    def _repair_directory(self) -> None:
        try:
            found = self.run.repair_directory()
            problem = "" if found is None else str(found)
        except (OSError, R18Error) as error:
            found = None
            problem = f"{self.run.run_dir.path} was deleted during training and cannot be created again: {error}"
        if problem not in ("", self._last_warning):
            self._last_warning = problem
            self.run.log.publish(Warned(message=problem))
        if found is not None and found.checkpoints_lost:
            self.commands.send(SaveCheckpoint())
