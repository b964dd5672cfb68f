"""Runs the command in R18_TUI_HOOK when a run ends, fails or is held; never one from a configuration, which others may write."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping

from trainer.errors import ConfigError
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event, Record
from trainer.run.log.run_events import Diverged, Failed, Finished

VARIABLE = "R18_TUI_HOOK"


class EndHook:
    """Observer of the log that runs the command, on the log writer's thread, without waiting for it."""

    def __init__(self, run_dir: RunDir, environment: Mapping[str, str]) -> None:
        """Read the command, if one is set; ConfigError when it does not exist: now rather than at the end of a run."""
        self._run_dir = run_dir
        try:
            self._command = shlex.split(environment.get(VARIABLE, ""))
        except ValueError as error:
            raise ConfigError(f"{VARIABLE}: {error}: {environment[VARIABLE]}") from None
        if self._command and shutil.which(self._command[0]) is None:
            raise ConfigError(
                f"{VARIABLE}: no such command: {self._command[0]}; give its full path, or unset {VARIABLE}"
            )

    def observe(self, record: Record) -> None:
        """Run the command if the event is one to report; OSError when it cannot be run."""
        notice = _notice(record.event)
        if not self._command or notice is None:
            return
        what, message = notice
        facts = {"R18_TUI_RUN": str(self._run_dir.path), "R18_TUI_EVENT": what, "R18_TUI_MESSAGE": message}
        subprocess.Popen(
            self._command, env={**os.environ, **facts}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _notice(event: Event) -> tuple[str, str] | None:
    """Word and sentence that describe an event; None if it is not reported."""
    if isinstance(event, Finished):
        return "finished", f"{event.reason} at step {event.step:,}"
    if isinstance(event, Failed):
        return "failed", event.error
    if isinstance(event, Diverged):
        return "held", f"{event.in_a_row} non-finite steps in a row; the run waits at step {event.step:,}"
    return None
