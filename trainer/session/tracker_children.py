"""Runs one child process per tracker of a live run. Torch-free."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence

from trainer.config.trackers import TrackerName
from trainer.host.self_command import own_command
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.run_events import Warned


class TrackerChildren:
    """Child processes, started once per session; they end by themselves, a second after this process."""

    def __init__(self, run_dir: RunDir, publish: Callable[[Event], object]) -> None:
        self._run_dir = run_dir
        self._publish = publish

    def start(self, names: Sequence[TrackerName]) -> None:
        """Start the processes; a failure is published as a warning."""
        for name in names:
            threading.Thread(target=self._main, args=(name,), name=f"tracker {name}", daemon=True).start()

    def _main(self, name: TrackerName) -> None:
        try:
            why = self._run(name)
        except OSError as error:
            why = f"it could not be started: {error}"
        if why:
            later = f"r18-tui sync {self._run_dir.path} --to {name}"
            self._publish(
                Warned(message=f"logging to {name} stopped: {why}; training continues; upload later with: {later}")
            )

    def _run(self, name: TrackerName) -> str:
        """Run a child and return the reason why it ended, which is an error while this process lives."""
        command = own_command(
            "trainer.cli", "sync", str(self._run_dir.path), "--to", name, "--until-ends", str(os.getpid())
        )
        with self._run_dir.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            last = ""
            assert process.stderr is not None
            for line in process.stderr:
                log.write(line)
                log.flush()
                last = line.decode(errors="replace").strip() or last
        code = process.wait()
        return f"its process ended with code {code}" + (f": {last}" if last else "")
