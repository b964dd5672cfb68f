"""The states of a run, as words for people."""

from __future__ import annotations

from enum import Enum


class RunState(str, Enum):
    """Activity of a run. The values are used in the log and on the screen."""

    LOADING = "loading PyTorch"
    PREPARING = "preparing"
    TRAINING = "training"
    EVALUATING = "evaluating"
    PAUSED = "paused"
    SAVING = "saving"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    LOST = "lost"


class Presence(Enum):
    """Whether a run has a trainer, as far as this process can find out."""

    THERE = "a process holds the run"
    GONE = "no process does"
    UNKNOWN = "its trainer is on another machine, whose lock is not visible here; only the log is available"


LIVE_STATES = frozenset(RunState) - {RunState.FINISHED, RunState.FAILED, RunState.LOST}
"""States in which a trainer process must be alive."""

HEARTBEAT_S = 10.0

LOST_AFTER_S = 45.0
"""Silence after which a run without a visible trainer counts as lost: four heartbeats, and slack for a slow disk."""
