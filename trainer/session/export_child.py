"""Runs the command `export` as a child process, which cannot crash, stall or leak into training, and passes its events on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable

from trainer.host.self_command import own_command
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import decode
from trainer.run.log.event import Event
from trainer.run.log.result_events import Exported, ExportFailed, ExportProgress


class ExportChild:
    """One export at a time. `start`, `cancel` and `wait` are called by the training thread."""

    def __init__(self, run_dir: RunDir, publish: Callable[[Event], object]) -> None:
        self._run_dir = run_dir
        self._publish = publish
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether an export is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, step: int, await_checkpoint: Callable[[], str]) -> None:
        """Export a step; `await_checkpoint` waits for its file and returns why it is missing (empty when it is there)."""
        self._publish(ExportProgress(stage=f"saving step {step:,}", fraction=0.0))
        self._thread = threading.Thread(target=self._main, args=(step, await_checkpoint), name="export", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the export to end; whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.running

    def cancel(self) -> None:
        """Terminate a running export."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.terminate()
        self.wait(5.0)

    def _main(self, step: int, await_checkpoint: Callable[[], str]) -> None:
        problem = await_checkpoint()
        if problem:
            self._publish(ExportFailed(error=problem))
            return
        try:
            self._run(step)
        except OSError as error:
            self._publish(ExportFailed(error=f"the export process could not be started: {error}"))

    def _run(self, step: int) -> None:
        command = own_command("trainer.cli", "export", str(self._run_dir.path), "--which", str(step), "--events")
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._run_dir.log.open("ab"))
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            with self._lock:
                if self._cancelled:
                    self._publish(ExportFailed(error="stopped"))
                    return
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
                )
            self._follow(stack.enter_context(self._process))

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        ended = False
        assert process.stdout is not None
        for line in process.stdout:
            record = decode(line)
            if record is not None:
                ended = ended or isinstance(record.event, (Exported, ExportFailed))
                self._publish(record.event)
        code = process.wait()
        if not ended:
            why = "stopped" if self._cancelled else f"the export process ended with code {code}; log.txt has its output"
            self._publish(ExportFailed(error=why))
