"""Runs a learning-rate range test between two steps of a run; a second key press stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trainer.errors import is_out_of_memory
from trainer.model.device import free_cached_memory
from trainer.run.control import commands as cmd
from trainer.run.log.event import Event
from trainer.run.log.result_events import LrRangeTested
from trainer.session.session_state import Activity, SessionState
from trainer.training.loop import Trainer
from trainer.training.lr_range_test import range_test


class _StoppedError(Exception):
    """The key that started the range test was pressed again."""


class LrRangeTrial:
    """A range test on a copy of the run's weights. On the training thread."""

    def __init__(
        self, state: SessionState, trainer: Callable[[], Trainer], publish: Callable[[Event], object],
        poll: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._state = state
        self._get_trainer = trainer  # called only once the loop exists
        self._publish = publish
        self._poll_session = poll  # takes the completed share; handles commands
        self._stopped = False

    def run(self, command: cmd.FindLr) -> str:
        """Run a test, or stop the one that is running; returns the reason for a refusal, empty when it is done."""
        trainer = self._get_trainer()
        if trainer.train_step.peers is not None:
            return "not with several processes; r18-tui find-lr tries rates with one"
        if self._state.activity is Activity.RANGE_TEST:
            self._stopped = True
            return ""
        if self._state.evaluating:
            return "an evaluation is under way"
        trainer.drain()
        self._stopped = False
        before = trainer.stopwatch.switch("rates")  # not in the budget, like a pause
        try:
            with self._state.during(Activity.RANGE_TEST):
                self._state.start_evaluation("learning rates")
                found = self._test(trainer)
        finally:
            trainer.stopwatch.switch(before)
        if isinstance(found, str):
            return found
        lrs, losses = [float(f"{lr:.4g}") for lr in found.lrs], [round(loss, 5) for loss in found.losses]
        self._publish(replace(found, lrs=lrs, losses=losses))
        return ""

    def _test(self, trainer: Trainer) -> LrRangeTested | str:
        """The measured range, or the reason why there is none."""
        try:
            return range_test(trainer, self._poll)
        except _StoppedError:
            return "stopped by key"
        except (RuntimeError, MemoryError) as error:
            # The run itself needs no second copy of the weights.
            if not is_out_of_memory(error):
                raise
            free_cached_memory()
            return "a copy of the weights does not fit in memory"

    def _poll(self, share: float) -> None:
        self._poll_session(share)
        if self._stopped:
            raise _StoppedError
