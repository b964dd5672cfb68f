"""Prints a run as plain lines: progress at most every ten seconds, one line per epoch, and notable events. No escape codes."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from trainer.host.safe_text import printable
from trainer.host.standard_streams import drop_output
from trainer.run.log.codec import decode
from trainer.run.log.event import Record, number
from trainer.run.log.live_source import LiveSource
from trainer.run.log.result_events import EpochEnded, Evaluated
from trainer.run.log.run_events import Failed, StateChanged
from trainer.run.status import RunState
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView
from trainer.session.training_thread import TrainingThread

LINE_EVERY_S = 10.0
_POLL_S = 0.2


def run_headless(thread: TrainingThread, source: LiveSource, *, remark: str = "") -> int:
    """Print `remark`, then the events of `source` until the training thread ends; returns the exit code."""
    reporter = Reporter(sys.stdout)
    if remark:
        reporter.say(remark)
    while True:
        alive = thread.alive
        while lines := source.read():
            for record in filter(None, map(decode, lines)):
                reporter.apply(record)
        reporter.tick(time.monotonic())
        if not alive:
            return thread.exit_code
        thread.join(_POLL_S)


class Reporter:
    """Prints lines about a run. Once the output has no reader (a closed pipe), lines are dropped."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._view = RunView()
        self._last_line_s = time.monotonic()
        self._last_detail = ""

    def apply(self, record: Record) -> None:
        """Fold a record in and print it if it is worth a line."""
        if self._view.has_seen(record):
            return
        last = self._view.notes[-1] if self._view.notes else None
        apply(self._view, record)
        event = record.event
        if isinstance(event, EpochEnded):
            self._epoch(event)
        elif isinstance(event, Evaluated):
            self._evaluation(event)
        elif isinstance(event, Failed):
            self.say(f"failed: {event.error}")
            if event.resume:
                self.say(f"last good checkpoint {event.checkpoint}; resume with: {event.resume}")
        elif self._view.notes and self._view.notes[-1] is not last:
            self.say(self._view.notes[-1].text)
        elif isinstance(event, StateChanged) and event.state == RunState.PREPARING.value:
            self._preparing(event)

    def tick(self, now: float) -> None:
        """Print the progress of training if nothing was printed for ten seconds; `now` is from `time.monotonic`."""
        if now - self._last_line_s < LINE_EVERY_S or self._view.state is not RunState.TRAINING or not self._view.step:
            return
        view = self._view
        rate, eta = view.images_per_s or 0.0, view.eta_s or 0.0
        loss = view.smoothed_loss[0.9].last or 0.0
        self.say(
            f"epoch {view.epoch}/{view.started.epochs if view.started else '?'}  step {view.step:,}/{view.total_steps:,}  "
            f"loss {loss:.4f}  lr {view.lr.last or 0.0:.4g}  {rate:,.0f} img/s  ETA {int(eta) // 60}:{int(eta) % 60:02d}"
        )

    def _epoch(self, event: EpochEnded) -> None:
        rate = self._view.images_per_s or 0.0
        epochs = self._view.started.epochs if self._view.started else "?"
        self.say(
            f"epoch {event.epoch}/{epochs}  train loss {number(event.train_loss):.4f}  "
            f"accuracy {number(event.train_accuracy):.2%}  lr {event.lr:.4g}  {rate:,.0f} img/s"
        )

    def _evaluation(self, event: Evaluated) -> None:
        tta = f"  flip-TTA {event.accuracy_tta:.2%}" if event.accuracy_tta is not None else ""
        best = "  best" if event.best else ""
        self.say(f"{event.split} loss {number(event.loss):.4f}  accuracy {event.accuracy:.2%}{tta}{best}")

    def _preparing(self, event: StateChanged) -> None:
        topic = event.detail.split(",")[0]
        if topic != self._last_detail:
            self._last_detail = topic
            self.say(f"preparing: {event.detail}")

    def say(self, text: str) -> None:
        """Write a line."""
        self._last_line_s = time.monotonic()
        try:
            self._out.write(printable(text, keep="\n") + "\n")
            self._out.flush()
        except BrokenPipeError:
            drop_output()  # the reader has closed the pipe; the log has everything
        except OSError:
            return  # a full disk: what waits in the stream is written with a later line
