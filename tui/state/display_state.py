"""Input of all panes: the folded run and the display settings."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.diagnosis.finding import Verdict
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import Evaluated, LayersMeasured
from trainer.run.status import Presence, RunState
from trainer.run.view.run_view import RunView
from trainer.run.view.series import Series, Smoothed
from tui.drawing.glyphs import UNICODE, Glyphs
from tui.state.class_results import ClassResult, class_results
from tui.state.viewport import Viewport

if TYPE_CHECKING:
    from tui.drawing.pyramid import Pyramid
    from tui.state.compared_run import Compared

_AT_REST = (RunState.PAUSED, RunState.FINISHED, RunState.FAILED, RunState.LOST)
_JUDGED_EVERY = 25  # steps between two diagnoses of the run


@dataclass
class DisplayState:
    """Read by panes while they draw; changed by the application between drawings, on the same thread."""

    view: RunView
    now: float = 0.0  # time of this drawing, in Unix seconds
    run_dir: RunDir = field(default_factory=lambda: RunDir(Path()))
    version: int = 0  # counts changes of the view; what depends on the view alone is drawn once per version
    behind: bool = False  # whether the view still shows the beginning of a long history
    glyphs: Glyphs = UNICODE
    smoothing: float = 0.9  # beta of the smoothed curves, 0 for none
    log_scale: bool = False  # whether the loss axis is logarithmic
    heat: bool = False  # whether pictures show which places speak for the class
    axis: str = "epoch"  # unit below curves, one of `tui.drawing.step_axis.AXES`
    viewport: Viewport = field(default_factory=Viewport)
    compared: tuple[Compared, ...] = ()  # other runs, whose held-out curves are drawn below those of this one
    pending: dict[str, str] = field(default_factory=dict)  # words for requests that are not yet answered, by action
    control_hint: str = ""  # shown in the header: `read-only`, `attached`, or nothing
    presence: Presence = Presence.UNKNOWN
    stopped_pid: int | None = None  # process of the trainer, if a signal has stopped it
    heard_s: float = -math.inf  # time of the last event while watched, on the monotonic clock, which never jumps
    resume_command: str = ""
    output: tuple[str, ...] = ()  # last lines that libraries printed
    unseen_output: int = 0  # number of output lines not yet shown
    pyramids: dict[str, Pyramid] = field(default_factory=dict)
    _classes: tuple[tuple[object, ...], list[ClassResult]] = field(default=((None,) * 3, []), init=False, repr=False)
    _judged: tuple[object, list[Verdict]] = field(default=(None, []), init=False, repr=False)

    @property
    def state(self) -> RunState:
        """The run's state at `now`."""
        return self.view.state_seen(self.presence, self.silence_s)

    @property
    def word(self) -> str:
        return "reading the log" if self.behind else self.view.word_for(self.state)

    @property
    def at_rest(self) -> bool:
        """Whether no step is taken, and none will be without a command."""
        return self.state in _AT_REST

    @property
    def images_per_s(self) -> float | None:
        """Throughput of the newest steps in images/s; None while the run is paused."""
        return None if self.state is RunState.PAUSED else self.view.images_per_s

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end; None while no step is taken."""
        return None if self.at_rest or self.stopped_pid else self.view.eta_s

    @property
    def silence_s(self) -> float:
        return min(time.monotonic() - self.heard_s, self.now - self.view.last_time)

    @property
    def verdicts(self) -> list[Verdict]:
        """Problems of the run, worst first; diagnosed again after each event that may matter."""
        view = self.view
        seen = (view.step // _JUDGED_EVERY, len(view.evaluations), view.readings, view.state, view.bad_records)
        if self._judged[0] != seen:
            self._judged = seen, verdicts(view)
        return self._judged[1]

    @property
    def class_results(self) -> list[ClassResult]:
        """All classes by their newest evaluation, worst first; the same list until the next evaluation."""
        seen = (self.view.last_evaluation, self.view.previous_evaluation, self.view.started)
        if any(before is not now for before, now in zip(self._classes[0], seen, strict=True)):
            self._classes = seen, class_results(self.view)
        return self._classes[1]

    def shown_name(self, name: str) -> str:
        """The name in `series` of the curve of `loss` or `accuracy`: smoothed if smoothing is on."""
        return f"~{name}" if self.smoothing else name

    def series(self, name: str) -> Series | Smoothed:
        """`loss`, `accuracy`, `lr` or `memory`; with the chosen smoothing `~loss` and `~accuracy`."""
        view = self.view
        if name.startswith("~"):
            return {"~loss": view.smoothed_loss, "~accuracy": view.smoothed_accuracy}[name][self.smoothing]
        return {"loss": view.train_loss, "accuracy": view.train_accuracy, "lr": view.lr, "memory": view.memory}[name]

    def pyramid(self, name: str) -> Pyramid:
        """The decimated series, up to date."""
        return self._followed(f"{name}{self.smoothing}" if name.startswith("~") else name, self.series(name))

    def planned_pyramid(self) -> Pyramid:
        """The learning-rate schedule as planned now, including the user's edits."""
        key = f"planned {self.view.total_steps} {self.view.lr_edits} {self.view.replanned_at}"
        if key in self.pyramids:
            return self.pyramids[key]
        series = Series()
        for step, rate in zip(*self.view.planned_lr(), strict=True):
            if step > self.view.replanned_at:  # before that another plan applied
                series.append(step, rate)
        return self._followed(key, series)

    def _followed(self, key: str, series: Series | Smoothed) -> Pyramid:
        # Imported here so that the first frame does not wait for numpy.
        from tui.drawing.pyramid import Pyramid

        pyramid = self.pyramids.setdefault(key, Pyramid())
        pyramid.follow(series)
        return pyramid

    @property
    def total(self) -> float:
        """Steps of the whole run, at least 1."""
        return float(max(self.view.total_steps, self.view.step, 1))

    def value_of(self, name: str) -> float | None:
        """The value of a series at the cursor, else the newest."""
        series, cursor = self.series(name), self.viewport.cursor
        if cursor is None:
            return series.last
        index = bisect_right(series.x, cursor) - 1
        return series.y[index] if index >= 0 else None

    def raw_at_cursor(self, name: str) -> float | None:
        """The unsmoothed value of `loss` or `accuracy` at the cursor; None without a cursor or without smoothing."""
        return None if self.viewport.cursor is None or not self.smoothing else self.value_of(name)

    def layers(self) -> LayersMeasured | None:
        """The statistics of each layer at the cursor, else the newest."""
        measured, cursor = self.view.layers, self.viewport.cursor
        if cursor is None:
            return measured[-1] if measured else None
        return next((event for event in reversed(measured) if event.step <= cursor), None)

    def evaluation(self) -> Evaluated | None:
        """The newest evaluation on the selection split, or the newest one before the cursor."""
        cursor, split = self.viewport.cursor, self.view.selection_split
        if cursor is None:
            return self.view.last_evaluation
        return next((e for e in reversed(self.view.evaluations) if e.split == split and e.step <= cursor), None)
