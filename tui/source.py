"""Where a dashboard's events come from, and where its commands go: a live run of this process, or a log on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainer.launch import TrainingThread
from trainer.run.commands import ControlPort, NoControl
from trainer.run.event_log import LogFollower, MemoryTee
from trainer.run.store import RunDir


class EventSource(Protocol):
    """Lines of a run's log, from its beginning."""

    def read(self) -> list[bytes]:
        """Whole lines that are new since the last call."""


class LiveSource:
    """The log of a run in this process: what stood in the file when it was opened, then the writer's memory tee."""

    def __init__(self, path: Path, tee: MemoryTee) -> None:
        self._history = LogFollower(path)
        self._tee = tee
        self._begun = False

    def read(self) -> list[bytes]:
        """New lines. History and tee may overlap; the fold ignores what it has seen."""
        history = [] if self._begun else self._history.read()
        self._begun = True
        return history + self._tee.read()


@dataclass(frozen=True, kw_only=True)
class Port:
    """Everything that a dashboard knows of the run's process.

    Attributes:
        thread: The trainer of this process; None where the run is only looked at.
    """

    run_dir: RunDir
    source: EventSource
    control: ControlPort
    thread: TrainingThread | None = None


def live_port(thread: TrainingThread) -> Port:
    """The port of a run that this process trains. Call it before the thread is started."""
    run_dir = thread.run.run_dir
    return Port(
        run_dir=run_dir, source=LiveSource(run_dir.events, thread.run.log.tee()), control=thread.commands, thread=thread
    )


def recorded_port(run_dir: RunDir) -> Port:
    """The port of a run that is only looked at."""
    refusal = f"only looked at here; to train on: {run_dir.resume_command()}"
    return Port(run_dir=run_dir, source=LogFollower(run_dir.events), control=NoControl(refusal))
