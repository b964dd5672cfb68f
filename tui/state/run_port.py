"""Source of a dashboard's events and target of its commands: a run of this process, of another one, or a log on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trainer.run.control.commands import ControlPort, NoControl
from trainer.run.folder.lock import is_live, presence, read_owner
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import LogReader
from trainer.run.status import Presence
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from trainer.session.training_thread import TrainingThread


class EventSource(Protocol):
    """Lines of a run's log, from its beginning."""

    def read(self) -> list[bytes]:
        """The next whole lines, in parts for a long history; an empty list at its end."""


@dataclass(frozen=True, kw_only=True)
class RunPort:
    """The dashboard's interface to the run's process; `thread` is None unless this process trains the run."""

    run_dir: RunDir
    source: EventSource
    control: ControlPort
    thread: TrainingThread | None = None


def attached_port(run_dir: RunDir) -> RunPort:
    """The port of a run that another process trains."""
    from trainer.run.control.client import SocketControl

    return RunPort(run_dir=run_dir, source=LogReader(run_dir.events), control=SocketControl(run_dir))


def recorded_port(run_dir: RunDir) -> RunPort:
    """The port of a run that is only viewed."""
    control = NoControl(lambda: _view_only_status(run_dir))
    return RunPort(run_dir=run_dir, source=LogReader(run_dir.events), control=control)


def _view_only_status(run_dir: RunDir) -> tuple[str, Presence]:
    """A hint on where the run can be controlled instead, and whether it has a trainer."""
    owner = read_owner(run_dir) or {}
    if not is_live(run_dir):
        elsewhere = f"to resume: {run_dir.resume_command()}"
    elif owner.get("ended"):
        elsewhere = f"its dashboard is still open in process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    else:
        elsewhere = f"to control it: {run_dir.attach_command()}"
    return f"view only; {elsewhere}", presence(run_dir)


def fold_new_events(view: RunView, source: EventSource) -> RunView:
    """Fold new events into the view, and return it."""
    while lines := source.read():
        replay(view, lines)
    return view
