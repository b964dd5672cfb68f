"""The state that a dashboard shows, and queries about it; `trainer.run.view.fold` folds events into it.

It depends on the events only (no clock, no file), so a live, an attached and a finished run show the same screen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from trainer.run.log import result_events as results
from trainer.run.log import run_events as events
from trainer.run.log.event import Record
from trainer.run.status import LIVE_STATES, LOST_AFTER_S, Presence, RunState
from trainer.run.view.series import Series, Smoothed
from trainer.run.view.throughput import StepWindow

SMOOTHING = (0.0, 0.9, 0.98)
"""Betas of the smoothed curves that key `s` cycles through; 0 shows the raw points alone."""

_NOTES_KEPT = 500
_BUDGETS_KEPT = 13  # one is published every five seconds, so the oldest is a minute old


@dataclass(frozen=True)
class Note:
    """A line of the event pane."""

    time: float
    level: str  # `info`, `good`, `warning` or `error`
    text: str


@dataclass(frozen=True)
class Mark:
    """An event at a step, drawn under the curves."""

    step: int
    kind: str  # `checkpoint`, `lr`, `resume`, `pause`, `frozen` or `note`
    text: str


@dataclass
class RunView:
    """The folded state, and queries about it. Read by the thread that folds it. Times are Unix seconds."""

    seq: int = -1
    opened: events.Opened | None = None
    started: events.Started | None = None
    state: RunState = RunState.LOADING
    state_detail: str = ""
    state_fraction: float | None = None
    state_since: float = 0.0
    paused: bool = False  # paused by key; evaluations and saves are still possible
    paused_since: float = 0.0
    begun: float = 0.0  # time of the first event; 0 without any
    last_time: float = 0.0
    last_step_time: float = 0.0
    step: int = 0
    train_loss: Series = field(default_factory=Series)
    train_accuracy: Series = field(default_factory=Series)
    lr: Series = field(default_factory=Series)
    clock: Series = field(default_factory=Series, compare=False)  # times of some steps, at least a second apart
    memory: Series = field(default_factory=Series)  # bytes in use at some steps, on the GPU or by this process
    smoothed_loss: dict[float, Smoothed] = field(init=False, compare=False)
    smoothed_accuracy: dict[float, Smoothed] = field(init=False, compare=False)
    eval_loss: dict[str, Series] = field(default_factory=dict)
    eval_accuracy: dict[str, Series] = field(default_factory=dict)
    evaluations: list[results.Evaluated] = field(default_factory=list)
    epochs: list[results.EpochEnded] = field(default_factory=list)
    best: results.Evaluated | None = None
    lr_edits: list[tuple[int, float]] = field(default_factory=list)
    replanned_at: int = 0
    marks: list[Mark] = field(default_factory=list)
    checkpoints: list[results.CheckpointSaved] = field(default_factory=list)
    pictures: dict[tuple[str, str], results.PicturesSaved] = field(default_factory=dict)
    layers: list[results.LayersMeasured] = field(default_factory=list)
    budget: dict[str, float] = field(default_factory=dict)
    readings: dict[str, float] = field(default_factory=dict)
    exporting: results.ExportProgress | None = None
    exported: results.Exported | None = None
    failure: events.Failed | None = None
    finish: events.Finished | None = None
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=_NOTES_KEPT))
    acknowledged: dict[str, events.Acknowledged] = field(default_factory=dict)
    unsaved_since: float | None = None
    unlogged_since: float | None = None
    nonfinite_steps: int = 0
    diverged: events.Diverged | None = None
    frozen: events.StagesFrozen | None = None
    lr_range: results.LrRangeTested | None = None
    bad_records: int = 0  # lines skipped because of invalid values
    window: StepWindow = field(default_factory=StepWindow)
    budgets: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=_BUDGETS_KEPT), compare=False)
    regular_save: Note | None = None  # on the newest save, if that was a regular one
    skip_note: Note | None = None  # on the newest skipped steps, which began with `skipped_from`
    skipped_from: int = 0
    session_step: int = 0  # steps done when this session began

    def __post_init__(self) -> None:
        self.smoothed_loss = {beta: Smoothed(self.train_loss, beta) for beta in SMOOTHING if beta}
        self.smoothed_accuracy = {beta: Smoothed(self.train_accuracy, beta) for beta in SMOOTHING if beta}

    def has_seen(self, record: Record) -> bool:
        """Whether a record was already folded in; `LogFailed` has no number of its own."""
        return record.seq <= self.seq and not isinstance(record.event, events.LogFailed)

    def has_passed(self, seq: Any) -> bool:
        """Whether an invalid line was already read, by its sequence number, which may be any value."""
        return type(seq) is int and 0 <= seq <= self.seq

    def place_of(self, path: str) -> str:
        """Path of a file of the run, relative to the folder where the run was started."""
        return f"{self.opened.directory}/{path}" if self.opened else path

    def note(self, time: float, level: str, text: str) -> None:
        """Add a line to the event list."""
        self.notes.append(Note(time, level, text))

    def state_seen(self, presence: Presence, silence_s: float) -> RunState:
        """The state, or `lost` for a run that cannot be training; silence counts only where its trainer cannot be seen."""
        silent = presence is Presence.UNKNOWN and silence_s > LOST_AFTER_S
        lost = self.state in LIVE_STATES and (presence is Presence.GONE or silent)
        return RunState.LOST if lost else self.state

    def word_for(self, state: RunState) -> str:
        """A state as a word for people: `stopped` for a run that ended before its last epoch."""
        early = state is RunState.FINISHED and self.finish is not None and self.finish.reason != "completed"
        return "stopped" if early else state.value

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run; 0 until they are known."""
        return self.started.total_steps if self.started else 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; 0 until they are known."""
        return self.started.steps_per_epoch if self.started else 0

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """Configuration by group and key; empty until the run is opened."""
        return self.opened.config if self.opened else {}

    @property
    def plan(self) -> dict[str, float]:
        """Current plan by dotted key: epochs, and the intervals of evaluations and saves."""
        return {
            "train.epochs": self.started.epochs if self.started else 1,
            "eval.every_epochs": self.config.get("eval", {}).get("every_epochs", 1),
            "checkpoint.every_s": self.config.get("checkpoint", {}).get("every_s", 60),
        }

    @property
    def next_lr(self) -> float:
        """Learning rate of the last step with later edits applied: close to that of the next step. 0 before the first."""
        return (self.lr.last or 0.0) * math.prod(factor for step, factor in self.lr_edits if step >= self.step)

    @property
    def edit_to_undo(self) -> float | None:
        """Factor of the newest edit of the learning rate that has not been undone."""
        standing: list[float] = []
        for _, factor in self.lr_edits:
            if standing and math.isclose(standing[-1] * factor, 1.0):
                standing.pop()
            else:
                standing.append(factor)
        return standing[-1] if standing else None

    def rate_with(self, epochs: int) -> float:
        """Learning rate of the next step if the run had `epochs` epochs, with the user's edits."""
        # Imported here: configuration validation must not load before the first frame.
        from trainer.config.lr_schedule import LrSchedule
        from trainer.config.schema import ScheduleConfig

        schedule = LrSchedule(
            config=ScheduleConfig(**self.config.get("schedule", {})), lr=float(self.config.get("optim", {}).get("lr", 0.0)),
            epochs=epochs, steps_per_epoch=max(self.steps_per_epoch, 1), edits=self.lr_edits,
            shortest=int(self.plan["train.epochs"]),
        )  # fmt: skip
        return schedule.at(self.step)

    @property
    def epoch(self) -> int:
        """Epoch of the last step, from 1; an epoch lasts until its evaluation is over. 0 before the start."""
        if not self.started:
            return 0
        return max(math.ceil(self.step / max(self.started.steps_per_epoch, 1)), 1)

    @property
    def selection_split(self) -> str:
        """The split named in the titles of the panes: `val` where it exists, else `test`."""
        return self.started.selection_split if self.started else "test"

    @property
    def best_by(self) -> str:
        """Criterion of the best checkpoint: `accuracy` or `loss`."""
        return "loss" if self.config.get("eval", {}).get("best_by") == "loss" else "accuracy"

    @property
    def best_name(self) -> str:
        """`best`, or `best by loss` where the loss is the criterion: its accuracy need not be the highest then."""
        return "best by loss" if self.best_by == "loss" else "best"

    @property
    def user_notes(self) -> list[Mark]:
        """Notes of the user, in the order of their steps."""
        return [mark for mark in self.marks if mark.kind == "note"]

    @property
    def last_evaluation(self) -> results.Evaluated | None:
        """The newest evaluation on the selection split."""
        return next(iter(self.last_evaluations(1)), None)

    @property
    def previous_evaluation(self) -> results.Evaluated | None:
        """The evaluation before `last_evaluation` on the same split."""
        measured = self.last_evaluations(2)
        return measured[0] if len(measured) > 1 else None

    @property
    def regular_evaluations(self) -> list[results.Evaluated]:
        """All evaluations on the selection split that were not requested by key."""
        return [event for event in self.last_evaluations(len(self.evaluations)) if event.trigger != "key"]

    def last_evaluations(self, count: int) -> list[results.Evaluated]:
        """Up to `count` newest evaluations on the selection split with as many classes as the last, oldest first."""
        of_split = [event for event in reversed(self.evaluations) if event.split == self.selection_split]
        alike = (event for event in of_split if len(event.counts) == len(of_split[0].counts))
        return list(islice(alike, count))[::-1]

    def class_names(self, count: int) -> list[str]:
        """Names of `count` classes; a number where the log has no name."""
        names = self.started.classes[:count] if self.started else []
        return [*names, *map(str, range(len(names), count))]

    @property
    def images_per_s(self) -> float | None:
        """Training images per second over the last half minute of training; pauses and evaluations do not count."""
        return self.window.images_per_s

    @property
    def recent_budget(self) -> dict[str, float]:
        """Seconds by activity within the last minute; if less is known, since the start or resume."""
        if len(self.budgets) < 2:
            return self.budget
        oldest = self.budgets[0]
        return {name: seconds - oldest.get(name, 0.0) for name, seconds in self.budgets[-1].items()}

    @property
    def eta_s(self) -> float | None:
        """Seconds of training and evaluation still to come; None until steps have been timed."""
        step_s = self.window.step_s
        if not self.started or step_s is None:
            return None
        left, last = max(self.total_steps - self.step, 0), self.last_evaluation
        evaluations_left = left / max(self.started.steps_per_epoch * self.plan["eval.every_epochs"], 1)
        return self._steps_of_this_size_left * step_s + evaluations_left * (last.seconds if last else 0.0)

    @property
    def _steps_of_this_size_left(self) -> float:
        """Remaining work as a number of steps at the current image size: the time of a step is proportional to its pixels."""
        sizes = [(max(end - max(begin, self.step), 0), size) for begin, end, size in self.image_sizes()]
        left = [(steps, size) for steps, size in sizes if steps]
        return sum(steps * (size / left[0][1]) ** 2 for steps, size in left)

    def image_sizes(self) -> Iterator[tuple[int, int, int]]:
        """Steps done before and after each size of training images, and the size in pixels."""
        data = self.config.get("data", {})
        if self.started is None:
            return
        begin = 0
        for size, epochs in [*data.get("progressive", []), (data.get("image_size", 1), math.inf)]:
            end = int(min(begin + epochs * self.started.steps_per_epoch, self.total_steps))
            yield begin, end, size
            begin = end

    def elapsed_at(self, step: float) -> float:
        """Seconds from the start of the first session until a step, with pauses and absences; an estimate for future steps."""
        clock = self.clock
        if not clock:
            return 0.0
        after = min(bisect_left(clock.x, step), len(clock) - 1)
        if step >= clock.x[-1] or not after:
            return clock.y[after] - clock.y[0] + (step - clock.x[after]) * (self.window.step_s or 0.0)
        share = (step - clock.x[after - 1]) / (clock.x[after] - clock.x[after - 1])
        return clock.y[after - 1] + share * (clock.y[after] - clock.y[after - 1]) - clock.y[0]

    def planned_lr(self) -> tuple[list[float], list[float]]:
        """Sampled steps, counted from 1, and learning rates of the whole schedule, with the user's edits."""
        if not self.started:
            return [], []
        steps, rates = self.started.planned_lr
        edits = (math.prod((factor for done, factor in self.lr_edits if done < step), start=1.0) for step in steps)
        return steps, [rate * edit for rate, edit in zip(rates, edits, strict=True)]
