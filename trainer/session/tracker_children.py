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


def start_trackers(names: Sequence[TrackerName], run_dir: RunDir, publish: Callable[[Event], object]) -> None:
    """Start one process per tracker; each ends by itself, a second after this process. A failure is published."""
    for name in names:
        arguments = name, run_dir, publish
        threading.Thread(target=_follow_child, args=arguments, name=f"tracker {name}", daemon=True).start()


def _follow_child(name: TrackerName, run_dir: RunDir, publish: Callable[[Event], object]) -> None:
    try:
        why = _run_child(name, run_dir)
    except OSError as error:
        why = f"it could not be started: {error}"
    later = f"r18-tui sync {run_dir.path} --to {name}"
    publish(Warned(message=f"logging to {name} stopped: {why}; training continues; upload later with: {later}"))


def _run_child(name: TrackerName, run_dir: RunDir) -> str:
    """Run a child and return the reason why it ended, which is an error while this process lives."""
    command = own_command("trainer.cli", "sync", str(run_dir.path), "--to", name, "--until-ends", str(os.getpid()))
    with run_dir.log.open("ab") as log:
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
