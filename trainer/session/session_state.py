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
    """What the training thread is doing."""

    STEPS = enum.auto()
    """Takes steps, or waits between two of them."""
    EVALUATION = enum.auto()
    """Evaluates because the loop's schedule says so."""
    EVALUATION_BY_KEY = enum.auto()
    RANGE_TEST = enum.auto()


class SessionState:
    """What a session is doing. Everything happens on the training thread.

    Attributes:
        activity: Current activity.
        paused: Whether the user has paused the run; takes effect at the next step.
        finished: Whether the run has ended; evaluations, exports and saves may follow.
    """

    def __init__(self, publish: Callable[[Event], object]) -> None:
        """Start before the first step."""
        self.activity = Activity.STEPS
        self.paused = False
        self.finished = False
        self._publish = publish
        self._evaluated = ""
        self._shown_s = 0.0

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation or a range test is under way."""
        return self.activity is not Activity.STEPS

    @property
    def by_key(self) -> bool:
        """Whether the user has asked for what is under way; it runs to its end also while the run is paused."""
        return self.activity in (Activity.EVALUATION_BY_KEY, Activity.RANGE_TEST)

    def follow_loop(self, *, evaluating: bool) -> None:
        """Follow the loop from its steps to its evaluation and back, unless the user's own is under way."""
        if not self.by_key:
            self.activity = Activity.EVALUATION if evaluating else Activity.STEPS

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """Do something that the user has asked for, and return to steps, to the pause or to the end."""
        self.activity = activity
        try:
            yield
        finally:
            self.activity = Activity.STEPS
            # Also when it was stopped: a run that has ended must not end up as "evaluating".
            self.show(RunState.FINISHED if self.finished else RunState.PAUSED if self.paused else RunState.TRAINING)

    def start_evaluation(self, name: str) -> None:
        """Show that an evaluation begins.

        Args:
            name: What is evaluated.
        """
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
        """Publish a state.

        Args:
            state: State of the run.
            detail: What is being done, in words.
            fraction: Completed share, 0 to 1; None where it is unknown.
        """
        self._publish(StateChanged(state=state.value, detail=detail, fraction=fraction))
