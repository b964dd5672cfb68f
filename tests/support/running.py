"""Runs real training sessions in tests and reads their logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trainer.config.plain_config import PlainConfig
from trainer.config.schema import Config
from trainer.run.control import commands as cmd
from trainer.run.folder.run_config import resumed_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.reader import LogReader
from trainer.run.log.run_events import Acknowledged
from trainer.run.view.fold import apply
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from trainer.session.open_run import OpenRun, open_for_resume, open_new_run
from trainer.session.training_thread import TrainingThread

E = TypeVar("E", bound=Event)


def longer(config: Config, epochs: int) -> Config:
    """The configuration with another number of epochs."""
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})


def new_run(config: Config, runs_dir: Path) -> OpenRun:
    """Open a new run."""
    return open_new_run(PlainConfig.of(config), runs_dir)


def resumed_run(run_dir: RunDir, runs_dir: Path, *overrides: str) -> OpenRun:
    """Open a run for a resume."""
    return open_for_resume(run_dir, PlainConfig.of(resumed_config(run_dir, list(overrides))), runs_dir)


def train(
    config: Config, runs_dir: Path, *, resume: RunDir | None = None, overrides: tuple[str, ...] = ()
) -> TrainingThread:
    """Train to the end."""
    run = new_run(config, runs_dir) if resume is None else resumed_run(resume, runs_dir, *overrides)
    thread = start(run)
    assert thread.join(120), "training did not end"
    return thread


STARTED: list[TrainingThread] = []  # ended by the fixture `end_training`


def start(run: OpenRun, *, hold_open: bool = False) -> TrainingThread:
    """Start a training thread that the fixture `end_training` ends at the latest."""
    thread = TrainingThread(run, hold_open=hold_open)
    STARTED.append(thread)
    thread.start()
    return thread


def events_of(run_dir: RunDir, kind: type[E]) -> list[E]:
    """All events of a kind in a run's log, whose every line must be valid."""
    follower = LogReader(run_dir.events)
    events = [record.event for record in follower.records()]
    assert follower.bad_lines == 0, "the trainer has logged an invalid event"
    return [event for event in events if isinstance(event, kind)]


def view_of(run_dir: RunDir) -> RunView:
    """The view of a run's log."""
    view = RunView()
    replay(view, run_dir.events.read_bytes().splitlines(keepends=True))
    assert view.bad_records == 0, "the trainer has logged an invalid event"
    return view


def wait_for(run_dir: RunDir, condition: Callable[[RunView], bool], *, timeout: float = 90.0) -> RunView:
    """Follow a run's log until its view meets a condition."""
    view, follower = RunView(), LogReader(run_dir.events)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for record in follower.records():
            apply(view, record)
            if condition(view):
                return view
        time.sleep(0.02)
    notes = list(view.notes)[-5:]
    raise AssertionError(f"timed out: {view.state.value} at step {view.step}; notes: {notes}")


def wait_until(condition: Callable[[], bool], timeout: float) -> None:
    """Wait until another process or thread meets a condition."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def answered(run: RunDir, command: cmd.Command) -> Acknowledged:
    """What became of a command."""
    view = wait_for(run, lambda view: command.command_id in view.acknowledged)
    return view.acknowledged[command.command_id]
