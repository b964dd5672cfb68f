"""State of a session: what it is doing, whether it is paused, and whether its run has ended."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.run.log.event import Event
from trainer.run.log.run_events import StateChanged
from trainer.run.status import RunState

_PROGRESS_EVERY_S = 1.0


class Activity(enum.Enum):
    """Current activity of the training thread."""

    STEPS = enum.auto()  # including the wait between two steps
    EVALUATION = enum.auto()  # scheduled by the loop
    EVALUATION_BY_KEY = enum.auto()
    RANGE_TEST = enum.auto()


class SessionState:
    """Current state of a session. Everything happens on the training thread."""

    def __init__(self, publish: Callable[[Event], object]) -> None:
        self.activity = Activity.STEPS
        self.paused = False  # takes effect at the next step
        self.finished = False  # the run has ended; evaluations, exports and saves may follow
        self._publish = publish
        self._evaluated = ""
        self._shown_s = 0.0

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation or a range test is under way."""
        return self.activity is not Activity.STEPS

    @property
    def by_key(self) -> bool:
        """Whether the user requested the current activity, which then runs to its end even while paused."""
        return self.activity in (Activity.EVALUATION_BY_KEY, Activity.RANGE_TEST)

    def follow_loop(self, *, evaluating: bool) -> None:
        """Follow the loop between steps and evaluation, unless a requested activity is running."""
        if not self.by_key:
            self.activity = Activity.EVALUATION if evaluating else Activity.STEPS

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """Context of an activity requested by the user; afterwards the state of the run is shown again."""
        self.activity = activity
        try:
            yield
        finally:
            self.activity = Activity.STEPS
            # Even when it was stopped: a finished run must not stay "evaluating".
            self.show(RunState.FINISHED if self.finished else RunState.PAUSED if self.paused else RunState.TRAINING)

    def start_evaluation(self, name: str) -> None:
        """Show that the evaluation of `name` begins."""
        self._evaluated = name
        self._shown_s = time.monotonic()
        self.show(RunState.EVALUATING, name)

    def show_progress(self, share: float) -> None:
        """Show the completed share of an evaluation, at most once a second."""
        now = time.monotonic()
        if now - self._shown_s >= _PROGRESS_EVERY_S:
            self._shown_s = now
            self.show(RunState.EVALUATING, self._evaluated, round(share, 3))

    def show(self, state: RunState, detail: str = "", fraction: float | None = None) -> None:
        """Publish a state; `fraction` is the completed share, 0 to 1, or None where it is unknown."""
        self._publish(StateChanged(state=state.value, detail=detail, fraction=fraction))
