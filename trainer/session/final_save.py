"""Saves the last state of a run at its end, unless a second stop is requested meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainer.run.control.commands import CommandQueue, Stop, acknowledgement
from trainer.run.log.event import Event
from trainer.run.log.run_events import StateChanged, Warned
from trainer.run.status import RunState
from trainer.session.saver import Saver
from trainer.training.loop import Trainer

_TRY_AGAIN_S = 15.0
_TICK_S = 0.1
_LONG_S = 5.0  # seconds after which a running save is reported, with the way to skip it


class FinalSave:
    """Waits for the last save and takes commands meanwhile. Everything happens on the training thread."""

    def __init__(
        self, saver: Saver, commands: CommandQueue, publish: Callable[[Event], object], hold_open: Callable[[], bool]
    ) -> None:
        self.stopped_by: Stop | None = None  # the stop that came during the save
        self._saver = saver
        self._commands = commands
        self._publish = publish
        self._hold_open = hold_open  # whether a user is at the screen, who can make room
        self._begun_s = 0.0
        self._takes_long = False
        self._reported = False

    def save(self, trainer: Trainer) -> None:
        """Save the state between two steps; DivergedError when it is not finite, DiskError when it was not saved."""
        self._begun_s = time.monotonic()
        self._saver.save_final(trainer, self._wait_for_room, self._given_up)

    def _wait_for_room(self, problem: str) -> bool:
        """Give the user at the screen time to make room; whether to try again."""
        if not self._reported:
            self._reported = True
            text = f"not saved: {problem}. Retrying every {_TRY_AGAIN_S:.0f} s. Stop again to exit without saving"
            self._publish(Warned(message=text))
        self._publish(StateChanged(state=RunState.SAVING.value, detail="not saved yet"))
        end = time.monotonic() + _TRY_AGAIN_S
        while self._hold_open() and time.monotonic() < end:
            if self._stop_requested(_TICK_S):
                return False
        return self._hold_open()

    def _given_up(self) -> bool:
        """Whether the user asks to exit during the save; counts only once the consequence was published."""
        asked = self._stop_requested()
        if asked and self._takes_long:
            return True
        if not self._takes_long and time.monotonic() - self._begun_s > _LONG_S:
            self._takes_long = True
            text = f"the last save is taking longer than {_LONG_S:.0f} s. Stop again to exit without it"
            self._publish(Warned(message=text))
            self._publish(StateChanged(state=RunState.SAVING.value, detail="still saving"))
        return False

    def _stop_requested(self, timeout_s: float = 0.0) -> bool:
        command = self._commands.take(timeout=timeout_s)
        if isinstance(command, Stop):
            self._publish(acknowledgement(command))
            self.stopped_by = command
            return True
        if command is not None:
            self._publish(acknowledgement(command, "the run has ended and is waiting for its last save"))
        return False
