"""The state that a dashboard shows, folded from the events of a run.

It depends only on the records (no clock, no file), so a live, an attached and a finished run show the same screen. A
record that was already applied is ignored, so a reader may overlap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import Any

from trainer.run.control.commands import GoBack, Unpause
from trainer.run.log.event import Event, Record, number
from trainer.run.log.result_events import (
    CheckpointFailed,
    CheckpointSaved,
    EpochEnded,
    Evaluated,
    Exported,
    ExportFailed,
    ExportProgress,
    LayersMeasured,
    LrRangeTested,
    PicturesSaved,
    Steps,
)
from trainer.run.log.run_events import (
    BY_ITSELF,
    Acknowledged,
    Diverged,
    Failed,
    Finished,
    Gap,
    LogFailed,
    LogRecovered,
    LrEdited,
    Monitored,
    Noted,
    Opened,
    Resumed,
    SettingsChanged,
    StagesFrozen,
    Started,
    StateChanged,
    Warned,
)
from trainer.run.status import RunState
from trainer.run.view.queries import Mark, Note, RunFacts
from trainer.run.view.series import Series
from trainer.run.view.step_columns import StepColumns
from trainer.run.view.throughput import StepWindow

_LAYERS_KEPT = 96
_TICK_S = 1.0
_MAY_BE_HELD = (RunState.PAUSED, RunState.EVALUATING, RunState.SAVING)  # states of a paused run


@dataclass
class RunView(RunFacts):
    """The folded state. Fold single records with `apply` and many lines with `replay`, on the thread that reads it."""

    def has_seen(self, record: Record) -> bool:
        """Whether a record was already folded in; `LogFailed` has no number of its own."""
        return record.seq <= self.seq and not isinstance(record.event, LogFailed)

    def has_passed(self, seq: Any) -> bool:
        """Whether an invalid line was already read, by its sequence number, which may be any value."""
        return type(seq) is int and 0 <= seq <= self.seq

    def apply(self, record: Record) -> None:
        """Fold one record in."""
        if self.has_seen(record):
            return
        self.heard(record.seq, record.time)
        self._fold(record)

    def apply_steps(self, columns: StepColumns, time: float) -> None:
        """Fold many new steps in, none of them skipped, up to a Unix time. The caller calls `heard` afterwards."""
        self.train_loss.extend(columns.steps, columns.losses)
        self.train_accuracy.extend(columns.steps, columns.accuracies)
        self.lr.extend(columns.steps, columns.rates)
        self.nonfinite_steps += columns.nonfinite
        self.step = int(columns.steps[-1])
        self.last_step_time = time
        self.tick(self.step, time)
        self._take_budget(columns.budget)
        groups = columns.groups
        for begin, _, _ in self.image_sizes():
            line = bisect_left(columns.firsts, begin + 1)
            if columns.firsts[line : line + 1] == [begin + 1]:
                # Steps at another image size do not predict the remaining ones.
                self._window, groups = StepWindow(), columns.groups[line:]
        self._window.add(groups)

    def tick(self, step: int, time: float) -> None:
        """Record the time of a step. Steps never decrease here."""
        clock = self.clock
        if len(clock) > 1 and time - clock.y[-2] < _TICK_S:
            clock.drop_after(clock.x[-2])
        clock.put(float(step), time)

    def take_memory(self, readings: list[tuple[int, dict[str, float]]]) -> None:
        """Record the memory in use, from the steps done and the values of each `Monitored` event, in order."""
        for step, reading in readings:
            used = reading.get("device_used_bytes", reading.get("process_bytes"))
            if used is not None and step:
                self.memory.put(float(step), float(used))

    def _take_budget(self, budget: dict[str, float]) -> None:
        if budget:
            self.budget = budget
            self._budgets.append(budget)

    def heard(self, seq: int, time: float) -> None:
        """Record sequence number and time of the newest folded line."""
        self.seq, self.last_time, self.begun = max(self.seq, seq), time, self.begun or time

    def _fold(self, record: Record) -> None:
        handler = _HANDLERS.get(type(record.event))
        if handler is not None:
            handler(self, record.event, record.time)

    # The fold ---------------------------------------------------------------------------------------------------------

    def _note(self, time: float, level: str, text: str) -> None:
        self.notes.append(Note(time, level, text))

    def _opened(self, event: Opened, time: float) -> None:
        self.opened = event
        self.failure = self.finish = self.exporting = None
        self._budgets.clear()
        self.unsaved_since = self.unlogged_since = None
        self._set_state(RunState.LOADING, time)
        self._note(time, "info", f"{'resuming' if event.resume else 'new run'} {event.directory}")

    def _started(self, event: Started, time: float) -> None:
        self.started = event
        self.tick(self.step, time)
        self.frozen, self._begun_at = None, self.step  # the frozen stages are published again
        device = event.device.get("name", "?")
        self._note(
            time, "info", f"{device}, {event.choices.get('precision', '?')}; {event.splits.get('train', 0):,} images"
        )
        if event.skipped_images:
            self._note(
                time, "warning", f"{event.skipped_images:,} unreadable images left out; each is named in the log"
            )

    def _state(self, event: StateChanged, time: float) -> None:
        state = RunState(event.state)
        if state is RunState.PAUSED and not self.held:
            self.held, self.held_since = True, time
            self.marks.append(Mark(self.step, "pause", "paused"))
            self._note(time, "info", f"paused at step {self.step:,}")
        elif state is RunState.TRAINING:
            self._go_on(time)
        self._set_state(state, time)
        self.state_detail, self.state_fraction = event.detail, event.fraction

    def _go_on(self, time: float) -> None:
        if self.held:
            self.held = False
            self._note(time, "info", f"continues from step {self.step:,}")

    def _set_state(self, state: RunState, time: float) -> None:
        if state is RunState.TRAINING:
            self.diverged = None
        if state not in _MAY_BE_HELD:
            self.held = False
        if state is not self.state or not self.state_since:
            self.state, self.state_since = state, time
        self.state_detail, self.state_fraction = "", None

    def _steps(self, event: Steps, time: float) -> None:
        count = len(event.loss)
        values = (event.loss, event.accuracy, event.lr)
        groups = [(count, event.images, event.seconds)]
        self.apply_steps(StepColumns.of([event.first_step], [count], values, groups, event.budget), time)
        if event.skipped:
            self._skipped(event.skipped, time)

    def _skipped(self, steps: list[int], time: float) -> None:
        first, last = int(steps[0]), int(steps[-1])
        if self.notes and self.notes[-1] is self._skip_note and self._skipped_from:
            first = self._skipped_from
            self.notes.pop()
        which = f"steps {first:,} to {last:,}" if last > first else f"step {first:,}"
        precision = (self.started.choices if self.started else {}).get("precision")
        why = "loss or gradient overflowed in fp16" if precision == "fp16" else "loss or gradient not finite"
        self._note(time, "warning", f"{which}: {why}, weights left as they were")
        self._skip_note, self._skipped_from = self.notes[-1], first

    def _diverged(self, event: Diverged, time: float) -> None:
        self.diverged = event
        back = f"b restores {event.checkpoint}; " if event.checkpoint else ""
        self._note(time, "error", f"{event.in_a_row} non-finite steps in a row: {back}l lowers the rate, p continues")

    def _frozen(self, event: StagesFrozen, time: float) -> None:
        self.frozen = event
        if event.step > self._begun_at:
            self.marks.append(Mark(event.step, "frozen", f"frozen: {', '.join(event.stages) or 'nothing'}"))
        which = " to ".join(dict.fromkeys((event.stages[0], event.stages[-1]))) if event.stages else "nothing"
        self._note(time, "info", f"frozen: {which}; {event.trainable:,} parameters are trained")

    def _epoch(self, event: EpochEnded, time: float) -> None:
        self.epochs.append(event)
        self._note(
            time, "info", f"epoch {event.epoch}  train {_loss(event.train_loss)}/{number(event.train_accuracy):.1%}"
        )

    def _evaluation(self, event: Evaluated, time: float) -> None:
        # A resume repeats the evaluations after the last save, some at the very step of the resume.
        again = (event.split, event.step, event.trigger == "key")
        first = bisect_left(self.evaluations, event.step, key=lambda e: e.step)
        later = [e for e in self.evaluations[first:] if (e.split, e.step, e.trigger == "key") != again]
        # The test of the best weights is logged after evaluations of later steps.
        later.insert(bisect_right(later, event.step, key=lambda e: e.step), event)
        self.evaluations[first:] = later
        self._forget_confusions(event.split)
        self.eval_loss.setdefault(event.split, Series()).put(event.step, number(event.loss))
        self.eval_accuracy.setdefault(event.split, Series()).put(event.step, event.accuracy)
        if event.best:
            self.best = event
        tta = f" (flip-TTA {event.accuracy_tta:.2%})" if event.accuracy_tta is not None else ""
        text = f"{event.split} {_loss(event.loss)}/{event.accuracy:.2%}{tta}{'  best' if event.best else ''}"
        self._note(time, "good" if event.best else "info", text)

    def _forget_confusions(self, split: str) -> None:
        """Keep confusions of a split's newest evaluation only: with a thousand classes each takes a third of a MB."""
        of_split = [index for index, e in enumerate(self.evaluations) if e.split == split]
        for index in of_split[-3:-1]:
            if self.evaluations[index].confusions:
                self.evaluations[index] = replace(self.evaluations[index], confusions=[], predicted=[])

    def _pictures(self, event: PicturesSaved, time: float) -> None:
        self.pictures[event.what, event.split] = event

    def _layers(self, event: LayersMeasured, time: float) -> None:
        self.layers.append(event)
        if len(self.layers) > _LAYERS_KEPT:
            # Some kilobytes each: in a run of hundreds of epochs every second is kept, then every fourth, and the newest.
            self.layers = self.layers[-1::-2][::-1]

    def _checkpoint(self, event: CheckpointSaved, time: float) -> None:
        self.checkpoints.append(event)
        self.unsaved_since = None
        asked_for = event.pinned or event.best
        if asked_for:
            self.marks.append(Mark(event.step, "checkpoint", event.path))
        elif self.notes and self.notes[-1] is self._regular_save:
            # Regular saves, one a minute, would bury all other notes; the newest replaces those directly before it.
            self.notes.pop()
        name, pinned = event.path.rpartition("/")[2].removesuffix(".safetensors"), ", pinned" if event.pinned else ""
        self._note(time, "info", f"saved {name} ({event.size_bytes / 1e6:.1f} MB, verified{pinned})")
        self._regular_save = None if asked_for else self.notes[-1]

    def _checkpoint_failed(self, event: CheckpointFailed, time: float) -> None:
        self.unsaved_since = self.unsaved_since or time
        self._note(time, "error", f"checkpoint at step {event.step} not saved: {event.error}")

    def _lr_edited(self, event: LrEdited, time: float) -> None:
        self.lr_edits.append((event.step, event.factor))
        self.marks.append(Mark(event.step, "lr", f"learning rate x{event.factor:g}"))
        self._note(time, "info", f"learning rate x{event.factor:.4g} to {event.lr:.4g} from step {event.step + 1}")

    def _settings(self, event: SettingsChanged, time: float) -> None:
        if self.opened is not None:
            config = {group: keys | event.config.get(group, {}) for group, keys in self.opened.config.items()}
            self.opened = replace(self.opened, config=config)
        if self.started is not None:
            self.started = replace(
                self.started, epochs=event.epochs, total_steps=event.total_steps, planned_lr=event.planned_lr
            )
        self.replanned_at = event.step
        self._note(time, "info", f"from step {event.step + 1:,}: {', '.join(event.changes)}")

    def _noted(self, event: Noted, time: float) -> None:
        self.marks.append(Mark(event.step, "note", event.text))
        self._note(time, "info", f"note at step {event.step:,}: {event.text}")

    def _lr_range(self, event: LrRangeTested, time: float) -> None:
        self.lr_range = event
        self._note(time, "info", f"learning rates tried: {event.reason}")

    def _export_progress(self, event: ExportProgress, time: float) -> None:
        self.exporting = event

    def _exported(self, event: Exported, time: float) -> None:
        self.exporting, self.exported = None, event
        self._note(
            time, "good",
            f"exported {self.place_of(event.path)} ({event.size_bytes / 1e6:.1f} MB; {event.images} images agree, "
            f"max diff {event.max_abs_diff:.1e})",
        )  # fmt: skip

    def place_of(self, path: str) -> str:
        """Path of a file of the run, relative to the folder where the run was started."""
        return f"{self.opened.directory}/{path}" if self.opened else path

    def _export_failed(self, event: ExportFailed, time: float) -> None:
        self.exporting = None
        self._note(time, "error", f"export failed: {event.error}")

    def _ack(self, event: Acknowledged, time: float) -> None:
        self.acknowledged[event.command_id] = event
        if event.ok and event.command in (Unpause.name, GoBack.name):
            self._go_on(time)
        if not event.ok:
            self._note(time, "warning", f"{event.command}: {event.message}")

    def _resumed(self, event: Resumed, time: float) -> None:
        for series in (
            self.train_loss,
            self.train_accuracy,
            self.lr,
            self.clock,
            self.memory,
            *self.eval_loss.values(),
            *self.eval_accuracy.values(),
        ):
            series.drop_after(event.step)
        self.evaluations = [e for e in self.evaluations if e.step <= event.step]
        self.epochs = [e for e in self.epochs if e.step <= event.step]
        self.replanned_at = min(self.replanned_at, event.step)
        self.layers = [past for past in self.layers if past.step <= event.step]
        self.pictures = {key: past for key, past in self.pictures.items() if past.step <= event.step}
        self.best = next((e for e in reversed(self.evaluations) if e.best), None)
        # Prefer the edits in the checkpoint: an edit at its very step may have come after it.
        known = event.lr_edits
        kept = [edit for edit in self.lr_edits if edit[0] <= event.step]
        self.lr_edits = kept if known is None else [(int(step), factor) for step, factor in known]
        edited = {step for step, _ in self.lr_edits}
        self.marks = [m for m in self.marks if m.step <= event.step and (m.kind != "lr" or m.step in edited)]
        self.marks.append(Mark(event.step, "resume", "resumed"))
        self.step = event.step
        self.nonfinite_steps = sum(value != value for value in self.train_loss.y)
        self._window = StepWindow()
        changed = f", with {', '.join(event.changes)}" if event.changes else ""
        self._note(time, "info", f"resumed from {event.checkpoint} at step {event.step:,}{changed}")

    def _monitor(self, event: Monitored, time: float) -> None:
        self.readings = event.readings
        self.take_memory([(self.step, event.readings)])

    def _warning(self, event: Warned, time: float) -> None:
        self._note(time, "warning", event.message)

    def _gap(self, event: Gap, time: float) -> None:
        self._note(
            time, "warning", f"the disk could not keep up: {event.dropped_events} groups of steps are not in the log"
        )

    def _log_failed(self, event: LogFailed, time: float) -> None:
        self.unlogged_since = self.unlogged_since or time
        self._note(time, "error", f"the log cannot be written: {event.error}")

    def _log_recovered(self, event: LogRecovered, time: float) -> None:
        self.unlogged_since = None
        self._note(time, "info", f"the log is written again, after {event.seconds:,.0f} s in which it could not be")

    def _failed(self, event: Failed, time: float) -> None:
        self.failure = event
        self._set_state(RunState.FAILED, time)
        self._note(time, "error", event.error)

    def _finished(self, event: Finished, time: float) -> None:
        self.finish = event
        self._set_state(RunState.FINISHED, time)
        self._note(time, "good" if event.reason in BY_ITSELF else "info", f"{event.reason} at step {event.step:,}")


def _loss(value: float | None) -> str:
    loss = number(value)
    return f"{loss:.3f}" if abs(loss) < 1e5 else f"{loss:.2e}"


_HANDLERS: dict[type[Event], Any] = {
    Opened: RunView._opened,
    Started: RunView._started,
    StateChanged: RunView._state,
    Steps: RunView._steps,
    Diverged: RunView._diverged,
    StagesFrozen: RunView._frozen,
    EpochEnded: RunView._epoch,
    Evaluated: RunView._evaluation,
    LayersMeasured: RunView._layers,
    PicturesSaved: RunView._pictures,
    CheckpointSaved: RunView._checkpoint,
    CheckpointFailed: RunView._checkpoint_failed,
    LrEdited: RunView._lr_edited,
    LrRangeTested: RunView._lr_range,
    Noted: RunView._noted,
    SettingsChanged: RunView._settings,
    ExportProgress: RunView._export_progress,
    Exported: RunView._exported,
    ExportFailed: RunView._export_failed,
    Acknowledged: RunView._ack,
    Resumed: RunView._resumed,
    Monitored: RunView._monitor,
    Warned: RunView._warning,
    Gap: RunView._gap,
    LogFailed: RunView._log_failed,
    LogRecovered: RunView._log_recovered,
    Failed: RunView._failed,
    Finished: RunView._finished,
}
