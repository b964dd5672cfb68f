"""How all runs of a folder stand: a line a run, from the same fold as the dashboard, without the points of single steps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.run.event_log import LogFollower
from trainer.run.events import Evaluated, number
from trainer.run.holder import is_live, presence
from trainer.run.replay import replay
from trainer.run.status import LIVE_STATES, RunState
from trainer.run.store import RunDir, list_runs
from trainer.run.view import RunView

_STEPS = b'"kind":"steps"'
_KIND_WITHIN = 80
"""Bytes from the start of a line within which its kind stands."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RunOverview:
    """How a run stands.

    Attributes:
        live: Whether a process holds it: it is trained, or its screen is still open.
        status: The state as a word for people; `stopped` for a run that ended before its last epoch.
        epoch: In progress, or the last one; 0 before the first step.
        epochs: As configured; 0 until they are known.
        split: That best and last were measured on.
        best: Highest accuracy, 0 to 1.
        last: Newest accuracy, 0 to 1.
        begun: Unix seconds of the first event; 0 without any.
        last_time: Unix seconds of the newest event; 0 without any.
        size_bytes: Of all files in the directory.
        losses: Held-out loss by epoch.
        accuracies: Held-out accuracy by epoch.
        bad_records: Number of lines of the log that were left out.
    """

    run_dir: RunDir
    live: bool
    state: RunState
    status: str
    epoch: int
    epochs: int
    split: str
    best: float | None
    last: float | None
    begun: float
    last_time: float
    size_bytes: int
    losses: tuple[Point, ...]
    accuracies: tuple[Point, ...]
    bad_records: int

    @property
    def trained(self) -> bool:
        """Whether a process trains it now."""
        return self.live and self.state in LIVE_STATES


class RunsFolder:
    """The runs of a folder, followed as they grow. Used by one thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Follow a folder, which need not exist.

        Args:
            path: The folder of runs.
            clock: Unix seconds.
        """
        self.path = path
        self._clock = clock
        self._followed: dict[tuple[Path, int], _FollowedRun] = {}

    def refresh(self) -> list[RunOverview]:
        """Read what is new; the run that was begun last comes first.

        Raises:
            OSError: When the folder cannot be read.
        """
        known, self._followed = self._followed, {}
        for run_dir in list_runs(self.path):
            try:
                key = (run_dir.path, run_dir.events.stat().st_ino)  # a new run may take the name of a deleted one
            except OSError:
                continue  # deleted a moment ago
            self._followed[key] = known.get(key) or _FollowedRun(run_dir)
        now = self._clock()
        runs = [followed.overview(now) for followed in self._followed.values()]
        return sorted(runs, key=lambda run: (-run.begun, run.run_dir.name))


class _FollowedRun:
    """A run whose log is read once, however often it is looked at."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._follower = LogFollower(run_dir.events)
        self._view = RunView()
        self._size_bytes = 0
        self._measured_at = -1.0

    def overview(self, now: float) -> RunOverview:
        self._read()
        view, live = self._view, is_live(self._run_dir)
        if self._measured_at != view.last_time:
            self._size_bytes, self._measured_at = _size_of(self._run_dir.path), view.last_time
        state = view.state_seen(presence(self._run_dir), now - view.last_time)
        measured = [event for event in view.evaluations if event.split == view.selection_split]
        return RunOverview(
            run_dir=self._run_dir, live=live, state=state, status=view.word_for(state), epoch=view.epoch,
            epochs=view.started.epochs if view.started else 0, split=view.selection_split,
            best=max((event.accuracy for event in measured), default=None),
            last=measured[-1].accuracy if measured else None, begun=view.begun, last_time=view.last_time,
            size_bytes=self._size_bytes,
            losses=_points(measured, lambda event: number(event.loss)),
            accuracies=_points(measured, lambda event: event.accuracy), bad_records=view.bad_records,
        )  # fmt: skip

    def _read(self) -> None:
        while lines := self._follower.read():
            # The steps of a long run are nearly all of its log, and only the newest are needed, for the position in the run.
            newest = max((i for i, line in enumerate(lines) if _STEPS in line[:_KIND_WITHIN]), default=-1)
            replay(
                self._view, [line for i, line in enumerate(lines) if i == newest or _STEPS not in line[:_KIND_WITHIN]]
            )


def _points(events: list[Evaluated], value: Callable[[Evaluated], float]) -> tuple[Point, ...]:
    """One point an epoch, the newest where an epoch was measured more than once."""
    return tuple(sorted({event.epoch: value(event) for event in events}.items()))


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile counts as nothing. Links are not followed."""
    total = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
