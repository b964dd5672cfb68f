"""Status of every run in a folder, one row per run, from the same fold as the dashboard, without the points of single steps."""

from __future__ import annotations

import contextlib
import operator
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.run.folder.lock import is_live, presence
from trainer.run.folder.run_dir import RunDir, list_logs, log_stat
from trainer.run.log.event import number
from trainer.run.log.reader import LogReader
from trainer.run.log.result_events import Evaluated, Steps
from trainer.run.log.run_events import Failed, Finished, Opened, Resumed, SettingsChanged, Started, StateChanged
from trainer.run.status import LIVE_STATES, Presence, RunState
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView

_KIND = re.compile(rb'"kind":\s*"(\w+)"')
_KIND_WITHIN = 80  # bytes of a line within which its kind is found
_SHOWN_KINDS = frozenset(
    cls.kind.encode() for cls in (Opened, Started, StateChanged, Evaluated, Resumed, SettingsChanged, Failed, Finished)
)
"""Kinds of events that the list uses. Steps, layers and readings are nearly all of a log."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RunOverview:
    """Status of a run, as shown in the list. Accuracies are fractions."""

    run_dir: RunDir
    live: bool  # a process owns it: it is being trained, or its screen is still open
    state: RunState
    status: str  # the state for people; `stopped` for a run that ended before its last epoch
    epoch: int  # current or last; 0 before the first step
    epochs: int  # configured; 0 until it is known
    split: str  # on which `best` and `last` were evaluated
    best: float | None  # accuracy of the best checkpoint, by `eval.best_by`
    last: float | None
    begun: float  # Unix seconds of the first event; 0 without any
    last_time: float  # Unix seconds of the newest event; 0 without any
    size_bytes: int  # of all files in the directory
    losses: tuple[Point, ...]  # held-out, by epoch
    accuracies: tuple[Point, ...]  # held-out, by epoch
    bad_records: int  # damaged lines among those that the list reads

    @property
    def is_training(self) -> bool:
        """Whether a process is training it."""
        return self.live and self.state in LIVE_STATES


class RunsFolder:
    """The runs of a folder, which need not exist, followed as they grow. Used by one thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.total = 0
        self._clock = clock
        self._followed: dict[tuple[str, int], _FollowedRun] = {}
        self._runs: list[RunOverview] = []

    @property
    def runs(self) -> list[RunOverview]:
        """All known runs, the most recently started first; the same list object until something changes."""
        known = [followed.overview for followed in self._followed.values() if followed.overview is not None]
        runs = sorted(known, key=lambda run: (-run.begun, run.run_dir.name))
        if len(runs) != len(self._runs) or any(map(operator.is_not, runs, self._runs)):
            self._runs = runs
        return self._runs

    def refresh(self) -> list[RunOverview]:
        """Read what is new in all runs; OSError when the folder cannot be read."""
        for _ in self.steps():
            continue
        return self.runs

    def live_steps(self) -> Iterator[None]:
        """Like `steps`, but only for runs that a process owns: reads few files, even in a large folder."""
        now = self._clock()
        for (path, inode), followed in self._followed.items():
            if followed.may_change and (log := log_stat(path)) is not None and log.st_ino == inode:
                followed.refresh(log, now)
                yield

    def steps(self) -> Iterator[None]:
        """Read what is new, the newest event's run first; yields after each that had something new. OSError as in `refresh`."""
        logs = list_logs(self.path)
        self.total = len(logs)
        # A new run may take the name of a deleted one.
        current = {(path, log.st_ino): log for path, log in logs}
        self._followed = {key: followed for key, followed in self._followed.items() if key in current}
        now = self._clock()
        for key, log in current.items():
            followed = self._followed.get(key)
            if followed is None:
                followed = self._followed[key] = _FollowedRun(RunDir(Path(key[0])))
            if followed.refresh(log, now):
                yield


class _FollowedRun:
    """A run whose log is read once, however often it is refreshed; of an ended run only the row is kept."""

    def __init__(self, run_dir: RunDir) -> None:
        self.overview: RunOverview | None = None  # None before it was read, and after it was deleted
        self._run_dir = run_dir
        self._owner_file = str(run_dir.trainer)
        self._log: tuple[LogReader, RunView] | None = None
        self._size_bytes = 0
        self._size_as_of = -1.0
        self._seen: object = None
        self.may_change = True  # also without its files, since its process or its log may end

    def refresh(self, log: os.stat_result, now: float) -> bool:
        """Read what is new, given the log's state and the Unix time `now`; returns whether anything may be new."""
        seen = (log.st_mtime_ns, log.st_size, _file_version(self._owner_file))
        if seen == self._seen and not self.may_change:
            return False
        self._seen = seen
        reader, view = self._log = self._log or (LogReader(self._run_dir.events), RunView())
        try:
            while lines := reader.read():
                replay(view, _shown(lines))
            fresh: RunOverview | None = self._overview_of(view, now)
        except FileNotFoundError:
            fresh = None  # just deleted
        except Exception:  # noqa: BLE001 - an unreadable run does not hide the others
            fresh, self.may_change = self._unreadable(view, now), True
        self.overview = self.overview if fresh == self.overview else fresh
        if not self.may_change:
            self._log = None  # a folder of thousands would fill the memory
        return True

    def _unreadable(self, view: RunView, now: float) -> RunOverview:
        """The row of a run that cannot be read: with what is known of it, if that can be determined."""
        try:
            row = self._overview_of(view, now)
        except Exception:  # noqa: BLE001 - as in `refresh`
            row = self._row(RunView(), RunState.LOST, live=False)
        return replace(row, status="unreadable")

    def _overview_of(self, view: RunView, now: float) -> RunOverview:
        live, owner_presence = is_live(self._run_dir), presence(self._run_dir)
        if self._size_as_of != view.last_time:
            self._size_bytes, self._size_as_of = _size_of(self._run_dir.path), view.last_time
        state = view.state_seen(owner_presence, now - view.last_time)
        self.may_change = live or (owner_presence is Presence.UNKNOWN and state in LIVE_STATES)
        return self._row(view, state, live=live)

    def _row(self, view: RunView, state: RunState, *, live: bool) -> RunOverview:
        evaluations = [event for event in view.evaluations if event.split == view.selection_split]
        return RunOverview(
            run_dir=self._run_dir, live=live, state=state, status=view.word_for(state), epoch=view.epoch,
            epochs=view.started.epochs if view.started else 0, split=view.selection_split,
            best=view.best.accuracy if view.best else None,
            last=evaluations[-1].accuracy if evaluations else None, begun=view.begun, last_time=view.last_time,
            size_bytes=self._size_bytes,
            losses=_points(evaluations, lambda event: number(event.loss)),
            accuracies=_points(evaluations, lambda event: event.accuracy), bad_records=view.bad_records,
        )  # fmt: skip


def _shown(lines: list[bytes]) -> list[bytes]:
    """The lines that the list needs: its kinds, the newest steps (position in the run) and the last line of all."""
    kinds = [found[1] if (found := _KIND.search(line, 0, _KIND_WITHIN)) else None for line in lines]
    steps = Steps.kind.encode()
    newest = max((index for index, kind in enumerate(kinds) if kind == steps), default=-1)
    last = len(lines) - 1
    return [
        line
        for index, (line, kind) in enumerate(zip(lines, kinds, strict=True))
        if kind is None or kind in _SHOWN_KINDS or index in (newest, last)
    ]


def _file_version(path: str) -> tuple[int, int, int] | None:
    """Identity of a file's content, which changes when it is written; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _points(events: list[Evaluated], value: Callable[[Evaluated], float]) -> tuple[Point, ...]:
    """One point per epoch, the newest if an epoch was evaluated more than once."""
    return tuple(sorted({event.epoch: value(event) for event in events}.items()))


def _size_of(folder: Path) -> int:
    """Size in bytes of all files below a folder; files that vanish meanwhile count as 0. Links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
