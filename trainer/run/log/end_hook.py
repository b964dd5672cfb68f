"""Runs a command of the user when a run ends, fails, or is held after steps that were not finite: a message to a phone, say.

The command is named by the environment of whoever starts the program, and never by a configuration, which may be somebody else's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping

from trainer.errors import ConfigError
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.events import Diverged, Event, Failed, Finished, Record

VARIABLE = "R18_TUI_HOOK"


class EndHook:
    """An observer of the log. Lives on the log writer's thread, which does not wait for the command."""

    def __init__(self, run_dir: RunDir, environment: Mapping[str, str]) -> None:
        """Take the command.

        Args:
            run_dir: Of the run.
            environment: With `R18_TUI_HOOK`, or without: then nothing is ever run.

        Raises:
            ConfigError: When there is no such command: now, and not when everybody has gone home.
        """
        self._run_dir = run_dir
        try:
            self._command = shlex.split(environment.get(VARIABLE, ""))
        except ValueError as error:
            raise ConfigError(f"{VARIABLE}: {error}: {environment[VARIABLE]}") from None
        if self._command and shutil.which(self._command[0]) is None:
            raise ConfigError(
                f"{VARIABLE}: no such command: {self._command[0]}; give its whole path, or unset {VARIABLE}"
            )

    def observe(self, record: Record) -> None:
        """Run the command, if this is an event to be told.

        Raises:
            OSError: When it cannot be run.
        """
        told = _told(record.event)
        if not self._command or told is None:
            return
        what, message = told
        facts = {"R18_TUI_RUN": str(self._run_dir.path), "R18_TUI_EVENT": what, "R18_TUI_MESSAGE": message}
        subprocess.Popen(
            self._command, env={**os.environ, **facts}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _told(event: Event) -> tuple[str, str] | None:
    """What happened, in a word and in a sentence; None for what need not be told."""
    if isinstance(event, Finished):
        return "finished", f"{event.reason} at step {event.step:,}"
    if isinstance(event, Failed):
        return "failed", event.error
    if isinstance(event, Diverged):
        return "held", f"{event.in_a_row} steps in a row were not finite; it waits at step {event.step:,}"
    return None
