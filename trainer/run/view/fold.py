"""Folds the events of a run into a `RunView`: `apply` takes one record, `trainer.run.view.replay` many lines at once.

A record that was already applied is ignored, so a reader may overlap.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, bisect_right
from dataclasses import replace

from trainer.run.control.commands import GoBack, Unpause
from trainer.run.log import result_events as results
from trainer.run.log import run_events as events
from trainer.run.log.event import Event, Record, number
from trainer.run.status import RunState
from trainer.run.view.fold_steps import StepColumns, apply_steps, record_line, take_memory, tick
from trainer.run.view.run_view import Mark, RunView
from trainer.run.view.series import Series
from trainer.run.view.throughput import StepWindow

_LAYERS_KEPT = 96
_STATES_WHILE_PAUSED = (RunState.PAUSED, RunState.EVALUATING, RunState.SAVING)


def apply(view: RunView, record: Record) -> None:
    """Fold one record in."""
    if view.has_seen(record):
        return
    record_line(view, record.seq, record.time)
    fold_event(record.event, view, record.time)


@functools.singledispatch
def fold_event(event: Event, view: RunView, time: float) -> None:
    """Change the view as an event says. Events without a handler change nothing that is shown."""


@fold_event.register(events.Opened)
def _opened(event: events.Opened, view: RunView, time: float) -> None:
    view.opened = event
    view.failure = view.finish = view.exporting = None
    view.budgets.clear()
    view.unsaved_since = view.unlogged_since = None
    _set_state(view, RunState.LOADING, time)
    view.note(time, "info", f"{'resuming' if event.resume else 'new run'} {event.directory}")


@fold_event.register(events.Started)
def _started(event: events.Started, view: RunView, time: float) -> None:
    view.started = event
    tick(view, view.step, time)
    view.frozen, view.session_step = None, view.step  # the frozen stages are published again
    device = event.device.get("name", "?")
    precision = f"{event.choices.get('precision', '?')}{' (remembered)' if event.choices.get('remembered') else ''}"
    view.note(time, "info", f"{device}, {precision}; {event.splits.get('train', 0):,} images")
    if event.skipped_images:
        view.note(time, "warning", f"{event.skipped_images:,} unreadable images skipped; the log names each")


@fold_event.register(events.StateChanged)
def _state(event: events.StateChanged, view: RunView, time: float) -> None:
    state = RunState(event.state)
    if state is RunState.PAUSED and not view.paused:
        view.paused, view.paused_since = True, time
        view.marks.append(Mark(view.step, "pause", "paused"))
        view.note(time, "info", f"paused at step {view.step:,}")
    elif state is RunState.TRAINING:
        _note_unpaused(view, time)
    _set_state(view, state, time)
    view.state_detail, view.state_fraction = event.detail, event.fraction


def _note_unpaused(view: RunView, time: float) -> None:
    if view.paused:
        view.paused = False
        view.note(time, "info", f"continues from step {view.step:,}")


def _set_state(view: RunView, state: RunState, time: float) -> None:
    if state is RunState.TRAINING:
        view.diverged = None
    if state not in _STATES_WHILE_PAUSED:
        view.paused = False
    if state is not view.state or not view.state_since:
        view.state, view.state_since = state, time
    view.state_detail, view.state_fraction = "", None


@fold_event.register(results.Steps)
def _steps(event: results.Steps, view: RunView, time: float) -> None:
    count = len(event.loss)
    values = (event.loss, event.accuracy, event.lr)
    groups = [(count, event.images, event.seconds)]
    apply_steps(view, StepColumns.of([event.first_step], [count], values, groups, event.budget), time)
    if event.skipped:
        _skipped(view, event.skipped, time)


def _skipped(view: RunView, steps: list[int], time: float) -> None:
    first, last = int(steps[0]), int(steps[-1])
    if view.notes and view.notes[-1] is view.skip_note and view.skipped_from:
        first = view.skipped_from
        view.notes.pop()
    which = f"steps {first:,} to {last:,}" if last > first else f"step {first:,}"
    precision = (view.started.choices if view.started else {}).get("precision")
    why = "loss or gradient overflowed in fp16" if precision == "fp16" else "loss or gradient not finite"
    view.note(time, "warning", f"{which}: {why}, weights unchanged")
    view.skip_note, view.skipped_from = view.notes[-1], first


@fold_event.register(events.Diverged)
def _diverged(event: events.Diverged, view: RunView, time: float) -> None:
    view.diverged = event
    back = f"b restores {event.checkpoint}; " if event.checkpoint else ""
    view.note(time, "error", f"{event.in_a_row} non-finite steps in a row: {back}l lowers the rate, p continues")


@fold_event.register(events.StagesFrozen)
def _frozen(event: events.StagesFrozen, view: RunView, time: float) -> None:
    view.frozen = event
    if event.step > view.session_step:
        view.marks.append(Mark(event.step, "frozen", f"frozen: {', '.join(event.stages) or 'nothing'}"))
    which = " to ".join(dict.fromkeys((event.stages[0], event.stages[-1]))) if event.stages else "nothing"
    view.note(time, "info", f"frozen: {which}; {event.trainable:,} parameters are trained")


@fold_event.register(results.EpochEnded)
def _epoch(event: results.EpochEnded, view: RunView, time: float) -> None:
    view.epochs.append(event)
    view.note(time, "info", f"epoch {event.epoch}  train {_loss(event.train_loss)}/{number(event.train_accuracy):.1%}")


@fold_event.register(results.Evaluated)
def _evaluation(event: results.Evaluated, view: RunView, time: float) -> None:
    # A resume repeats the evaluations after the last save, some at the very step of the resume.
    again = (event.split, event.step, event.trigger == "key")
    first = bisect_left(view.evaluations, event.step, key=lambda e: e.step)
    later = [e for e in view.evaluations[first:] if (e.split, e.step, e.trigger == "key") != again]
    # The test of the best weights is logged after evaluations of later steps.
    later.insert(bisect_right(later, event.step, key=lambda e: e.step), event)
    view.evaluations[first:] = later
    _forget_confusions(view, event.split)
    view.eval_loss.setdefault(event.split, Series()).put(event.step, number(event.loss))
    view.eval_accuracy.setdefault(event.split, Series()).put(event.step, event.accuracy)
    if event.best:
        view.best = event
    tta = f" (flip-TTA {event.accuracy_tta:.2%})" if event.accuracy_tta is not None else ""
    text = f"{event.split} {_loss(event.loss)}/{event.accuracy:.2%}{tta}{'  best' if event.best else ''}"
    view.note(time, "good" if event.best else "info", text)


def _forget_confusions(view: RunView, split: str) -> None:
    """Keep confusions of a split's newest evaluation only: with a thousand classes each takes a third of a MB."""
    of_split = [index for index, e in enumerate(view.evaluations) if e.split == split]
    for index in of_split[-3:-1]:
        if view.evaluations[index].confusions:
            view.evaluations[index] = replace(view.evaluations[index], confusions=[], predicted=[])


@fold_event.register(results.PicturesSaved)
def _pictures(event: results.PicturesSaved, view: RunView, time: float) -> None:
    view.pictures[event.what, event.split] = event


@fold_event.register(results.LayersMeasured)
def _layers(event: results.LayersMeasured, view: RunView, time: float) -> None:
    view.layers.append(event)
    if len(view.layers) > _LAYERS_KEPT:
        # Some kilobytes each: in a run of hundreds of epochs every second is kept, then every fourth, and the newest.
        view.layers = view.layers[-1::-2][::-1]


@fold_event.register(results.CheckpointSaved)
def _checkpoint(event: results.CheckpointSaved, view: RunView, time: float) -> None:
    view.checkpoints.append(event)
    view.unsaved_since = None
    asked_for = event.pinned or event.best
    if asked_for:
        view.marks.append(Mark(event.step, "checkpoint", event.path))
    elif view.notes and view.notes[-1] is view.regular_save:
        # Regular saves, one a minute, would bury all other notes; the newest replaces those directly before it.
        view.notes.pop()
    name, pinned = event.path.rpartition("/")[2].removesuffix(".safetensors"), ", pinned" if event.pinned else ""
    view.note(time, "info", f"saved {name} ({event.size_bytes / 1e6:.1f} MB, verified{pinned})")
    view.regular_save = None if asked_for else view.notes[-1]


@fold_event.register(results.CheckpointFailed)
def _checkpoint_failed(event: results.CheckpointFailed, view: RunView, time: float) -> None:
    view.unsaved_since = view.unsaved_since or time
    view.note(time, "error", f"checkpoint at step {event.step} not saved: {event.error}")


@fold_event.register(events.LrEdited)
def _lr_edited(event: events.LrEdited, view: RunView, time: float) -> None:
    view.lr_edits.append((event.step, event.factor))
    view.marks.append(Mark(event.step, "lr", f"learning rate x{event.factor:g}"))
    view.note(time, "info", f"learning rate x{event.factor:.4g} to {event.lr:.4g} from step {event.step + 1}")


@fold_event.register(events.SettingsChanged)
def _settings(event: events.SettingsChanged, view: RunView, time: float) -> None:
    if view.opened is not None:
        config = {group: keys | event.config.get(group, {}) for group, keys in view.opened.config.items()}
        view.opened = replace(view.opened, config=config)
    if view.started is not None:
        view.started = replace(
            view.started, epochs=event.epochs, total_steps=event.total_steps, planned_lr=event.planned_lr
        )
    view.replanned_at = event.step
    view.note(time, "info", f"from step {event.step + 1:,}: {', '.join(event.changes)}")


@fold_event.register(events.NoteAdded)
def _noted(event: events.NoteAdded, view: RunView, time: float) -> None:
    view.marks.append(Mark(event.step, "note", event.text))
    view.note(time, "info", f"note at step {event.step:,}: {event.text}")


@fold_event.register(results.LrRangeTested)
def _lr_range(event: results.LrRangeTested, view: RunView, time: float) -> None:
    view.lr_range = event
    view.note(time, "info", f"learning rates tried: {event.reason}")


@fold_event.register(results.ExportProgress)
def _export_progress(event: results.ExportProgress, view: RunView, time: float) -> None:
    view.exporting = event


@fold_event.register(results.Exported)
def _exported(event: results.Exported, view: RunView, time: float) -> None:
    view.exporting, view.exported = None, event
    view.note(time, "good",
        f"exported {view.place_of(event.path)} ({event.size_bytes / 1e6:.1f} MB; {event.images} images agree, "
        f"max diff {event.max_abs_diff:.1e})",
    )  # fmt: skip


@fold_event.register(results.ExportFailed)
def _export_failed(event: results.ExportFailed, view: RunView, time: float) -> None:
    view.exporting = None
    view.note(time, "error", f"export failed: {event.error}")


@fold_event.register(events.Acknowledged)
def _ack(event: events.Acknowledged, view: RunView, time: float) -> None:
    view.acknowledged[event.command_id] = event
    if event.ok and event.command in (Unpause.name, GoBack.name):
        _note_unpaused(view, time)
    if not event.ok:
        view.note(time, "warning", f"{event.command}: {event.message}")


@fold_event.register(events.Resumed)
def _resumed(event: events.Resumed, view: RunView, time: float) -> None:
    of_training = (view.train_loss, view.train_accuracy, view.lr, view.clock, view.memory)
    for series in (*of_training, *view.eval_loss.values(), *view.eval_accuracy.values()):
        series.drop_after(event.step)
    view.evaluations = [e for e in view.evaluations if e.step <= event.step]
    view.epochs = [e for e in view.epochs if e.step <= event.step]
    view.replanned_at = min(view.replanned_at, event.step)
    view.layers = [past for past in view.layers if past.step <= event.step]
    view.pictures = {key: past for key, past in view.pictures.items() if past.step <= event.step}
    view.best = next((e for e in reversed(view.evaluations) if e.best), None)
    # Prefer the edits in the checkpoint: an edit at its very step may have come after it.
    known = event.lr_edits
    kept = [edit for edit in view.lr_edits if edit[0] <= event.step]
    view.lr_edits = kept if known is None else [(int(step), factor) for step, factor in known]
    edited = {step for step, _ in view.lr_edits}
    view.marks = [m for m in view.marks if m.step <= event.step and (m.kind != "lr" or m.step in edited)]
    view.marks.append(Mark(event.step, "resume", "resumed"))
    view.step = event.step
    view.nonfinite_steps = sum(value != value for value in view.train_loss.y)
    view.window = StepWindow()
    changed = f", with {', '.join(event.changes)}" if event.changes else ""
    view.note(time, "info", f"resumed from {event.checkpoint} at step {event.step:,}{changed}")


@fold_event.register(events.Monitored)
def _monitor(event: events.Monitored, view: RunView, time: float) -> None:
    view.readings = event.readings
    take_memory(view, [(view.step, event.readings)])


@fold_event.register(events.Warned)
def _warning(event: events.Warned, view: RunView, time: float) -> None:
    view.note(time, "warning", event.message)


@fold_event.register(events.Gap)
def _gap(event: events.Gap, view: RunView, time: float) -> None:
    view.note(time, "warning", f"the disk could not keep up: {event.dropped_events} groups of steps are not in the log")


@fold_event.register(events.LogFailed)
def _log_failed(event: events.LogFailed, view: RunView, time: float) -> None:
    view.unlogged_since = view.unlogged_since or time
    view.note(time, "error", f"the log cannot be written: {event.error}")


@fold_event.register(events.LogRecovered)
def _log_recovered(event: events.LogRecovered, view: RunView, time: float) -> None:
    view.unlogged_since = None
    view.note(time, "info", f"log writable again after {event.seconds:,.0f} s")


@fold_event.register(events.Failed)
def _failed(event: events.Failed, view: RunView, time: float) -> None:
    view.failure = event
    _set_state(view, RunState.FAILED, time)
    view.note(time, "error", event.error)


@fold_event.register(events.Finished)
def _finished(event: events.Finished, view: RunView, time: float) -> None:
    view.finish = event
    _set_state(view, RunState.FINISHED, time)
    level = "good" if event.reason in events.NOT_INTERRUPTED else "info"
    view.note(time, level, f"{event.reason} at step {event.step:,}")


def _loss(value: float | None) -> str:
    loss = number(value)
    return f"{loss:.3f}" if abs(loss) < 1e5 else f"{loss:.2e}"
