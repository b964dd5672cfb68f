"""The torch-free start of a training session: take the run, open its log, and import the rest on the training thread.

A dashboard can be on the screen while `TrainingThread` still imports PyTorch. The thread is a plain one, owned here: the
dashboard's own workers would tie training to the life of a screen.
"""

from __future__ import annotations

import importlib
import io
import os
import socket
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config, may_change_on_resume
from trainer.config_loader import build_config, differences, parse_overrides, to_yaml
from trainer.errors import EXIT_OK, ConfigError, R18Error, RunError, exit_code_of
from trainer.run.atomic import write_atomically
from trainer.run.commands import CommandQueue, Stop
from trainer.run.event_log import EventLog, read_records
from trainer.run.events import Failed, Heartbeat, Opened
from trainer.run.results_csv import ResultsCsv
from trainer.run.status import HEARTBEAT_S
from trainer.run.store import RunDir, RunLock, create_run
from trainer.yaml_reader import read_mapping


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that this process may write to.

    Attributes:
        runs_dir: Folder in which other runs are looked up by name.
        resume: Whether training goes on from the run's newest checkpoint.
    """

    run_dir: RunDir
    runs_dir: Path
    config: Config
    lock: RunLock
    log: EventLog
    resume: bool

    def close(self) -> None:
        """Write the log's rest and let others write."""
        self.log.close()
        self.lock.release()


def open_new_run(config: Config, runs_dir: Path, *, name: str | None = None) -> OpenRun:
    """Make a run directory and become its writer.

    Args:
        config: Of the run.
        runs_dir: Where runs are kept.
        name: Instead of the configuration's.

    Raises:
        RunError: When it cannot be made.
    """
    run_dir = create_run(runs_dir, name or config.run.name)
    lock = RunLock.take(run_dir)
    try:
        write_atomically(run_dir.config, to_yaml(config).encode())
        return _open(run_dir, runs_dir, config, lock, resume=False)
    except OSError as error:
        raise RunError(f"{run_dir.path}: cannot be written: {error}") from error


def open_for_resume(run_dir: RunDir, runs_dir: Path, overrides: list[str]) -> OpenRun:
    """Become the writer of an existing run, with the run's own configuration.

    Args:
        run_dir: The run.
        runs_dir: Where runs are kept.
        overrides: `group.key=value` tokens; only those that a resume may change.

    Raises:
        RunError: When the run is live or cannot be written.
        ConfigError: When an override would make it another run; the message shows the difference.
    """
    lock = RunLock.take(run_dir)
    try:
        config = _resumed_config(run_dir, overrides)
        write_atomically(run_dir.config, to_yaml(config).encode())
        return _open(run_dir, runs_dir, config, lock, resume=True)
    except OSError as error:
        lock.release()
        raise RunError(f"{run_dir.path}: cannot be written: {error}") from error
    except R18Error:
        lock.release()
        raise


def read_run_config(run_dir: RunDir) -> Config:
    """The configuration that a run was started with.

    Raises:
        RunError: When it is missing.
        ConfigError: When it is not valid any more.
    """
    try:
        text = run_dir.config.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{run_dir.config}: cannot be read: {error.strerror}") from error
    values, lines = read_mapping(text, source=str(run_dir.config))
    return build_config(values, lines, str(run_dir.config))


class TrainingThread:
    """Trains an opened run on a thread of its own.

    `start`, `stop` and `join` are called by the main thread; everything else happens on the training thread.

    Attributes:
        commands: Where commands for the trainer go.
        exit_code: What the process shall exit with; valid once the thread has ended.
    """

    def __init__(self, run: OpenRun, *, hold_open: bool) -> None:
        self.run = run
        self.commands = CommandQueue()
        self.exit_code = EXIT_OK
        self._held = threading.Event()
        if hold_open:
            self._held.set()
        self._ended = threading.Event()
        self._step = 0
        # Not a daemon: the interpreter must not tear torch down under a running step.
        self._thread = threading.Thread(target=self._main, name="training")
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the first event is published before this returns."""
        run = self.run
        run.log.publish(
            Opened(
                run=run.run_dir.name, directory=str(run.run_dir.path), pid=os.getpid(), host=socket.gethostname(),
                resume=run.resume, config=run.config.model_dump(mode="json"),
            )
        )  # fmt: skip
        self._heart.start()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the run is still being trained, or held open for more commands."""
        return self._thread.is_alive()

    def stop(self, reason: str = "stopped", exit_code: int = EXIT_OK) -> None:
        """Ask the trainer to save and end. Safe in a signal handler."""
        self.commands.send(Stop(reason=reason, exit_code=exit_code))

    def release(self) -> None:
        """Nobody looks any more: end the thread when the run ends, instead of holding it open for more commands."""
        self._held.clear()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread.

        Returns:
            Whether it has ended.
        """
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            # Here, and by name, so that nothing before this line needs PyTorch.
            session_module = importlib.import_module("trainer.session")
            session = session_module.TrainingSession(self.run, self.commands, hold_open=self._held.is_set)
            self.exit_code = session.run()
        except BaseException as error:  # noqa: BLE001 - the thread's last line of defence: a state, not a dead screen
            self.exit_code = self._fail(error)
            self._hold_failed()
        finally:
            self._ended.set()
            self.run.close()

    def _fail(self, error: BaseException) -> int:
        log_traceback(self.run.run_dir, error)
        latest = self.run.run_dir.checkpoints / "latest"
        checkpoint = latest.read_text().strip() if latest.is_file() else ""
        code = exit_code_of(error)
        self.run.log.publish(
            Failed(
                error=explain(error), exit_code=code, checkpoint=checkpoint,
                resume=self.run.run_dir.resume_command() if checkpoint else "",
            )
        )  # fmt: skip
        return code

    def _hold_failed(self) -> None:
        # The dashboard keeps the failure on the screen; only leaving it ends the run's process.
        while self._held.is_set() and not isinstance(self.commands.take(timeout=0.5), Stop):
            continue

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self.run.log.publish(Heartbeat(step=self._step))


def explain(error: BaseException) -> str:
    """One line that says what went wrong and what to do."""
    if isinstance(error, R18Error):
        return str(error)
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return f"out of memory: {text}. Halve the micro-batch with train.grad_accum_steps=2, or lower data.batch_size"
    return f"{type(error).__name__}: {text or 'no message'} (traceback in log.txt)"


def log_traceback(run_dir: RunDir, error: BaseException) -> None:
    """Append a traceback to the run's `log.txt`."""
    text = io.StringIO()
    traceback.print_exception(error, file=text)
    try:
        with run_dir.log.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())
    except OSError:
        # The folder is gone or the disk is full; the error itself is still published.
        return


def _open(run_dir: RunDir, runs_dir: Path, config: Config, lock: RunLock, *, resume: bool) -> OpenRun:
    results = ResultsCsv(run_dir.results)
    if run_dir.events.exists():
        results.replay(read_records(run_dir.events))
    log = EventLog(run_dir.events, observers=(results,))
    return OpenRun(run_dir=run_dir, runs_dir=runs_dir, config=config, lock=lock, log=log, resume=resume)


def _resumed_config(run_dir: RunDir, overrides: list[str]) -> Config:
    old = read_run_config(run_dir)
    refused = [key for key, _ in parse_overrides(overrides) if not may_change_on_resume(key)]
    values: dict[str, Any] = old.model_dump(mode="json")
    new = build_config(values, {}, str(run_dir.config), overrides)
    changed = differences(old, new)
    refused = [key for key in refused if key in changed]
    if refused:
        shown = "\n".join(f"  {key}: {changed[key][0]!r} -> {changed[key][1]!r}" for key in refused)
        raise ConfigError(
            f"{run_dir.path}: a resume cannot change\n{shown}\n"
            f"Start a new run from these weights instead: model.init_from={run_dir.path}"
        )
    return new
