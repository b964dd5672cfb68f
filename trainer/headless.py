"""The run as plain lines: at most one every ten seconds, one an epoch, and what else is worth knowing. No escape codes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TextIO

from trainer.errors import EXIT_SIGHUP, EXIT_SIGINT, EXIT_SIGTERM
from trainer.launch import TrainingThread
from trainer.run import events as ev
from trainer.run.event_log import MemoryTee
from trainer.run.events import Record, decode, number
from trainer.run.status import RunState
from trainer.run.text import literal
from trainer.run.view import RunView

LINE_EVERY_S = 10.0
_POLL_S = 0.2

DOUBLED_S = 2.0
"""A signal that comes again within this time is the same one on another way, not a second request."""

SIGNAL_CODES = {signal.SIGINT: EXIT_SIGINT, signal.SIGTERM: EXIT_SIGTERM, signal.SIGHUP: EXIT_SIGHUP}
"""What the process exits with when a signal has stopped it and the state is saved."""


def install_stop_handlers(stop: Callable[[str, int], None], hang_up: Callable[[], None] | None = None) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into a stop at the next step; a second one leaves at once.

    Args:
        stop: Called with the signal's name and the exit code; must be safe in a signal handler.
        hang_up: Called at SIGHUP instead, by a run that can go on without its terminal; must be safe there, too.
    """
    first_s: list[float] = []

    def handle(received: int, _frame: FrameType | None) -> None:
        code = SIGNAL_CODES[signal.Signals(received)]
        if first_s and (received == signal.SIGHUP or time.monotonic() - first_s[0] < DOUBLED_S):
            return  # schedulers signal the launcher and us, and the launcher passes its own on: that is one request
        if first_s:
            # By the signal itself: whoever started us sees that nothing was tidied up, the terminal included.
            signal.signal(received, signal.SIG_DFL)
            os.kill(os.getpid(), received)
        first_s.append(time.monotonic())
        stop(signal.Signals(received).name, code)

    for handled in SIGNAL_CODES:
        signal.signal(handled, handle)
    if hang_up is not None:
        signal.signal(signal.SIGHUP, lambda _number, _frame: hang_up())


def run_headless(
    thread: TrainingThread, tee: MemoryTee, out: TextIO | None = None, *, view: RunView | None = None
) -> int:
    """Print what happens until the training thread ends.

    Args:
        thread: Started or about to be.
        tee: Of the run's log, from its first event.
        out: Instead of standard output.
        view: What has happened before the tee, where the run was shown in another way until now.

    Returns:
        The exit code.
    """
    reporter = Reporter(out or sys.stdout, view)
    while True:
        alive = thread.alive
        for line in tee.read():
            record = decode(line)
            if record is not None:
                reporter.apply(record)
        reporter.tick(time.monotonic())
        if not alive:
            return thread.exit_code
        thread.join(_POLL_S)


class Reporter:
    """Writes lines about a run. Lines that nobody can read any more (a closed pipe) are dropped."""

    def __init__(self, out: TextIO, view: RunView | None = None) -> None:
        self._out = out
        self._view = view or RunView()
        self._last_line_s = time.monotonic()
        self._last_detail = ""

    @property
    def view(self) -> RunView:
        """The fold of all records so far."""
        return self._view

    def apply(self, record: Record) -> None:
        """Fold a record in and say what is worth a line."""
        notes = len(self._view.notes)
        last = self._view.notes[-1] if notes else None
        self._view.apply(record)
        event = record.event
        if isinstance(event, ev.EpochEnded):
            self._epoch(event)
        elif isinstance(event, ev.Evaluated):
            self._evaluation(event)
        elif isinstance(event, ev.Failed):
            self._say(f"failed: {event.error}")
            if event.resume:
                self._say(f"last good checkpoint {event.checkpoint}; go on with: {event.resume}")
        elif self._view.notes and self._view.notes[-1] is not last:
            self._say(self._view.notes[-1].text)
        elif isinstance(event, ev.StateChanged) and event.state == RunState.PREPARING.value:
            self._preparing(event)

    def tick(self, now: float) -> None:
        """Say where training stands when nothing was said for ten seconds.

        Args:
            now: Seconds of `time.monotonic`.
        """
        if now - self._last_line_s < LINE_EVERY_S or self._view.state is not RunState.TRAINING or not self._view.step:
            return
        view = self._view
        rate, eta = view.images_per_s or 0.0, view.eta_s or 0.0
        loss = view.smoothed_loss[0.9].last or 0.0
        self._say(
            f"epoch {view.epoch}/{view.started.epochs if view.started else '?'}  step {view.step:,}/{view.total_steps:,}  "
            f"loss {loss:.4f}  lr {view.lr.last or 0.0:.4g}  {rate:,.0f} img/s  ETA {int(eta) // 60}:{int(eta) % 60:02d}"
        )

    def _epoch(self, event: ev.EpochEnded) -> None:
        rate = self._view.images_per_s or 0.0
        epochs = self._view.started.epochs if self._view.started else "?"
        self._say(
            f"epoch {event.epoch}/{epochs}  train loss {number(event.train_loss):.4f}  accuracy {event.train_accuracy:.2%}  "
            f"lr {event.lr:.4g}  {rate:,.0f} img/s"
        )

    def _evaluation(self, event: ev.Evaluated) -> None:
        tta = f"  flip-TTA {event.accuracy_tta:.2%}" if event.accuracy_tta is not None else ""
        best = "  best" if event.best else ""
        self._say(f"{event.split} loss {number(event.loss):.4f}  accuracy {event.accuracy:.2%}{tta}{best}")

    def _preparing(self, event: ev.StateChanged) -> None:
        topic = event.detail.split(",")[0]
        if topic != self._last_detail:
            self._last_detail = topic
            self._say(f"preparing: {event.detail}")

    def _say(self, text: str) -> None:
        self._last_line_s = time.monotonic()
        try:
            self._out.write(literal(text, keep="\n") + "\n")
            self._out.flush()
        except (BrokenPipeError, ValueError, OSError):
            # Whoever read us has left; the log has everything.
            self._out = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
