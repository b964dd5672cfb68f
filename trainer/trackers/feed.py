"""Turns the events of a run into calls of a tracker.

A resume takes back the steps since the last checkpoint, and most trackers cannot delete what they have received: they
would draw two curves. So records of a step are held until a checkpoint of that step, or of a later one, is on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from trainer.run.log import run_events as events
from trainer.run.log.event import Record, number
from trainer.run.log.result_events import CheckpointSaved, EpochEnded, Evaluated, LayersMeasured, PicturesSaved, Steps
from trainer.trackers.tracker import Histogram, Tracker


@dataclass(frozen=True)
class _Held:
    """A held call, from log line `seq`."""

    seq: int
    step: int
    call: Callable[[], None]


@dataclass
class Feed:
    """Processes records in the order of the log: a kind of event by the method that is named after it."""

    tracker: Tracker
    picture: Callable[[str, int], bytes | None]  # a file of the run as it was at a step; None when it was replaced
    seq: int = -1  # last log line passed on, also by earlier sessions; lines up to it are skipped
    step: int = 0  # last step passed on
    results: dict[str, float] = field(default_factory=dict)  # empty until the run is over
    bad_lines: int = 0  # skipped log lines
    _held: deque[_Held] = field(default_factory=deque)
    _classes: list[str] = field(default_factory=list)
    _at: int = 0
    _bests: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def take(self, record: Record) -> None:
        """Hold the calls for a record; a checkpoint releases the calls up to its step."""
        event = record.event
        handler = getattr(self, f"_on_{event.kind}", None)
        if handler is not None:
            handler(event, record)
        if isinstance(event, CheckpointSaved):
            self._pass_on(event.step)

    @property
    def held(self) -> int:
        """Number of steps waiting for a checkpoint."""
        return max((held.step for held in self._held), default=self.step) - self.step

    def _hold(
        self, record: Record, step: int, call: Callable[..., None], *values: object, time: float | None = None
    ) -> None:
        """Hold a call of the tracker with some values, a step and a time, by default the record's."""
        if record.seq > self.seq:
            at = record.time if time is None else time
            self._held.append(_Held(record.seq, step, partial(call, *values, step=step, time=at)))

    def _pass_on(self, saved: int) -> None:
        while self._held and self._held[0].step <= saved:
            held = self._held.popleft()
            held.call()
            self.seq, self.step = held.seq, max(self.step, held.step)

    def _on_opened(self, event: events.Opened, record: Record) -> None:
        self._at = self.step  # records before the resume's step is known belong to the last safe step

    def _on_started(self, event: events.Started, record: Record) -> None:
        self._classes = event.classes

    def _on_steps(self, event: Steps, record: Record) -> None:
        count = len(event.loss)
        pace = event.seconds / max(count, 1)
        for index in range(count):
            step = event.first_step + index
            values = {
                "train/loss": number(event.loss[index]), "train/accuracy": event.accuracy[index], "train/rate": event.lr[index],
            }  # fmt: skip
            if index == count - 1 and event.seconds > 0:
                values["train/images_per_s"] = event.images / event.seconds
            time = record.time - pace * (count - 1 - index)
            self._hold(record, step, self.tracker.scalars, values, time=time)
        self._at = event.first_step + count - 1

    def _on_epoch(self, event: EpochEnded, record: Record) -> None:
        values = {"epoch": float(event.epoch), "epoch/seconds": event.seconds}
        if event.train_loss is not None and event.train_accuracy is not None:
            values |= {"epoch/train_loss": event.train_loss, "epoch/train_accuracy": event.train_accuracy}
        self._hold(record, event.step, self.tracker.scalars, values)

    def _on_evaluation(self, event: Evaluated, record: Record) -> None:
        split = event.split
        values = {f"{split}/loss": number(event.loss), f"{split}/accuracy": event.accuracy}
        if event.accuracy_tta is not None:
            values[f"{split}/accuracy_tta"] = event.accuracy_tta
        for name, right, images in zip(self._classes, event.correct, event.counts, strict=False):
            if images:
                values[f"{split}_class/{name}"] = right / images
        self._hold(record, event.step, self.tracker.scalars, values)
        if event.best:
            best = {f"best/{split}_accuracy": event.accuracy, "best/step": float(event.step)}
            self._bests.append((event.step, best))
        elif self._bests and event.trigger == "end":  # the selected checkpoint, on the images that did not select it
            self._bests[-1][1][f"best/{split}_accuracy"] = event.accuracy

    def _on_layers(self, event: LayersMeasured, record: Record) -> None:
        norms = {}
        for index, name in enumerate(event.names):
            for kind, counts, limit in (
                ("weights", event.weights[index], event.weight_ranges[index]),
                ("gradients", event.gradients[index], event.gradient_ranges[index]),
            ):
                if counts and limit:
                    histogram = Histogram(counts=counts, limit=limit)
                    self._hold(record, event.step, self.tracker.histogram, f"{kind}/{name}", histogram)
            norm = event.gradient_norms[index]
            if norm is not None:
                norms[f"gradient_norm/{name}"] = norm
        self._hold(record, event.step, self.tracker.scalars, norms)

    def _on_pictures(self, event: PicturesSaved, record: Record) -> None:
        if record.seq <= self.seq:
            return
        png = self.picture(event.path, event.step)  # read now: the next evaluation writes to the same file
        if png is not None:
            self._hold(record, event.step, self.tracker.picture, f"{event.what}/{event.split}", png)

    def _on_monitor(self, event: events.Monitored, record: Record) -> None:
        self._hold(
            record, self._at, self.tracker.scalars, {f"system/{name}": value for name, value in event.readings.items()}
        )

    def _on_note(self, event: events.NoteAdded, record: Record) -> None:
        self._hold(record, event.step, self.tracker.note, event.text)

    def _on_lr_edited(self, event: events.LrEdited, record: Record) -> None:
        self._hold(record, event.step, self.tracker.note, f"learning rate x{event.factor:.4g} to {event.lr:.4g}")

    def _on_settings(self, event: events.SettingsChanged, record: Record) -> None:
        self._hold(record, event.step, self.tracker.note, ", ".join(event.changes))

    def _on_warning(self, event: events.Warned, record: Record) -> None:
        self._hold(record, self._at, self.tracker.note, event.message)

    def _on_resumed(self, event: events.Resumed, record: Record) -> None:
        self._held = deque(held for held in self._held if held.step <= event.step)
        self._at = event.step
        self._bests = [(step, best) for step, best in self._bests if step <= event.step]
        self.results = {}
        if record.seq > self.seq and event.step < self.step:
            # Resumed from a checkpoint that is not the newest: later ones were damaged or had diverged.
            self.tracker.back_to(event.step)
            self.step = event.step
        self._hold(record, event.step, self.tracker.note, f"resumed at step {event.step:,}")

    def _on_finished(self, event: events.Finished, record: Record) -> None:
        self._hold(record, event.step, self.tracker.note, f"{event.reason} at step {event.step:,}")
        if event.reason in events.NOT_INTERRUPTED:
            self.results = dict(self._bests[-1][1]) if self._bests else {}
            self._pass_on(event.step)
