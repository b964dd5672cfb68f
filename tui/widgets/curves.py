"""Loss and accuracy over the run: training as a line, evaluations as points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainer.run.view.run_view import Mark
from tui.drawing import format as fmt
from tui.drawing.canvas import Canvas, Row
from tui.state.display_state import DisplayState
from tui.widgets.step_pane import StepPane, cursor_figures, step_plot

if TYPE_CHECKING:
    from tui.drawing.plot import Area, Frame

_OFF_SCALE_FACTOR = 1.5
"""Evaluations above this multiple of the highest training loss and of the newest evaluation are left off the scale."""
_MARKS = {
    "lr": ("l", "LR set"), "resume": ("r", "resumed"), "pause": ("p", "paused"), "note": ("n", "note"),
    "frozen": ("u", "frozen/unfrozen"),
}  # fmt: skip
"""Letter below the curves and word of each kind of event except checkpoints."""
_SEVERAL = "*"


class CurvePane(StepPane):
    """Base of the two panes: frame, line, points, event track."""

    name_of_curve = ""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        title, right = self.name_of_curve.capitalize(), self.figures(scene)
        inner, rows = width - 4, height - 2
        if not len(scene.view.train_loss):
            return self.frame(scene.glyphs, title, [], _centred(_waiting(scene), inner, rows), width, height)
        canvas = Canvas(inner, rows, braille=scene.glyphs.braille)
        legend = self._legend(scene, self._draw(canvas, scene))
        return self.frame(scene.glyphs, title, right, canvas.rows(), width, height, bottom=legend)

    def figures(self, scene: DisplayState) -> Row:
        """Training and held-out values at the cursor, else the newest."""
        name, percent = self.name_of_curve, self.name_of_curve == "accuracy"
        shown, last, raw = fmt.percent if percent else fmt.number, scene.evaluation(), scene.raw_at_cursor(name)
        row = [*cursor_figures(scene), ("train ", "dim"), (shown(scene.value_of(scene.shown_name(name))), "train")]
        if last:
            row += [(f"  {last.split} ", "dim"), (shown(getattr(last, name)), "test")]
        if last and percent and last.accuracy_tta is not None:
            row += [("  tta ", "dim"), (shown(last.accuracy_tta), "test")]
        return row if raw is None else [*row, ("  raw ", "dim"), (shown(raw), "text")]

    def value_range(self, scene: DisplayState, left: float, right: float) -> tuple[float, float, bool]:
        """Lowest and highest value of the axis between two steps, and whether it is logarithmic."""
        raise NotImplementedError

    def evaluated_between(self, scene: DisplayState, left: float, right: float) -> list[float]:
        return [value for step, value in self.evaluated(scene) if left <= step <= right]

    def evaluated(self, scene: DisplayState) -> list[tuple[float, float]]:
        series = {"loss": scene.view.eval_loss, "accuracy": scene.view.eval_accuracy}[self.name_of_curve]
        found = series.get(scene.view.selection_split)
        return list(zip(found.x, found.y, strict=True)) if found else []

    def _draw(self, canvas: Canvas, scene: DisplayState) -> list[str]:
        """Draw everything; returns the entries of the legend."""
        from tui.drawing.plot import draw_cursor, draw_line, draw_marks, draw_point

        view, glyphs, with_axis = scene.view, scene.glyphs, canvas.height >= 6
        left, right = scene.viewport.edges(scene.total)
        low, high, log = self.value_range(scene, left, right)
        percent = self.name_of_curve == "accuracy"
        area, frame = step_plot(canvas, scene, low, high, log=log, percent=percent, with_axis=with_axis)
        self._draw_compared(canvas, area, frame, scene)
        raw = scene.pyramid(self.name_of_curve)
        if scene.smoothing:
            draw_line(canvas, area, frame, raw, "raw")
            draw_line(canvas, area, frame, scene.pyramid(f"~{self.name_of_curve}"), "train", thin=True)
        else:
            draw_line(canvas, area, frame, raw, "train")
        for step, value in self.evaluated(scene):
            draw_point(canvas, area, frame, step, value, glyphs.point if value <= high else glyphs.above, "test")
        if view.best:
            best = view.best.accuracy if percent else view.best.loss
            if best is not None and best <= high:
                draw_point(canvas, area, frame, view.best.step, best, glyphs.best, "good")
        draw_marks(canvas, area, frame, raw, glyphs)
        draw_cursor(canvas, area, frame, glyphs, scene.viewport.cursor)
        above = any(value > high for value in self.evaluated_between(scene, left, right))
        remarks = _events_at_cursor(area, frame, view.marks, scene.viewport.cursor)
        remarks += [f"{glyphs.above} above the axis"] if above else []
        return remarks + (_draw_track(canvas, area, frame, view.marks, glyphs.mark) if with_axis else [])

    def _draw_compared(self, canvas: Canvas, area: Area, frame: Frame, scene: DisplayState) -> None:
        """Draw held-out curves of other runs, by epoch; what lies beyond the axis is left out."""
        from tui.drawing.plot import draw_line, draw_point
        from tui.drawing.pyramid import Pyramid

        per_epoch = scene.view.steps_per_epoch
        for one in scene.compared:
            points = [
                (epoch * per_epoch, value)
                for epoch, value in one.points(self.name_of_curve)
                if frame.low <= value <= frame.high and epoch * per_epoch <= frame.right
            ]
            if not points:
                continue
            draw_line(canvas, area, frame, Pyramid.of_points(points), "dim", thin=True)
            if frame.left <= points[-1][0]:
                draw_point(canvas, area, frame, *points[-1], one.label, "text")

    def _legend(self, scene: DisplayState, drawn: list[str]) -> str:
        glyphs = scene.glyphs
        split = scene.view.selection_split
        flatters = split == "test" and self.name_of_curve == "accuracy"
        back = ["esc reads the newest"] if scene.viewport.cursor is not None and not self.has_class("zoomed") else []
        best = f"{glyphs.best} {scene.view.best_name}{', chosen on test' if flatters else ''}"
        parts = [*back, f"{glyphs.point} {split}", best]
        parts += [f"{one.label} {fmt.printable(one.run.run_dir.name)}" for one in scene.compared]
        if scene.view.nonfinite_steps:
            parts.append(f"{glyphs.not_a_number} not finite")
        smoothed = [f"smoothed {scene.smoothing:g}"] if scene.smoothing else []
        first, then = (drawn, parts) if scene.viewport.cursor is not None else (parts, drawn)
        return "  ".join([*first, *then, *smoothed])


class LossPane(CurvePane):
    """Cross-entropy."""

    name_of_curve = page = "loss"

    def value_range(self, scene: DisplayState, left: float, right: float) -> tuple[float, float, bool]:
        """From 0 (or the lowest decade) to the highest training loss, and to the evaluations that are not far above it.

        The first ones can be so high, by batch norm's initial statistics, that they would flatten every curve. The newest is
        always on the scale.
        """
        from tui.drawing.plot import nice_range

        extent = scene.pyramid("loss").extent(left, right)
        values = [value for value in self.evaluated_between(scene, left, right) if math.isfinite(value)]
        low, high = extent or (0.0, 1.0)
        ceiling = _OFF_SCALE_FACTOR * max(high, *values[-1:], 0.0)
        values = [value for value in values if value <= ceiling]
        low, high = min([low, *values]), max([high, *values])
        if scene.log_scale and high > 0:
            floor = max(low, high * 1e-6)
            return 10.0 ** math.floor(math.log10(floor)), 10.0 ** math.ceil(math.log10(high) + 1e-9), True
        whole = scene.viewport.span is None
        return (*nice_range(0.0 if low > 0 and whole else low, high), False)


class AccuracyPane(CurvePane):
    """Top-1 accuracy."""

    name_of_curve = page = "accuracy"

    def figures(self, scene: DisplayState) -> Row:
        row, best = super().figures(scene), scene.view.best
        if best and scene.viewport.cursor is None:
            row += [(f"  {scene.view.best_name} ", "dim"), (fmt.percent(best.accuracy), "good")]
        return row

    def value_range(self, scene: DisplayState, left: float, right: float) -> tuple[float, float, bool]:
        """0 to 100 %, or from the lowest multiple of ten once all values are high; for a part of the run, its own range."""
        from tui.drawing.plot import nice_range

        extent = scene.pyramid(scene.shown_name("accuracy")).extent(left, right) or (0.0, 1.0)
        values = [*extent, *self.evaluated_between(scene, left, right)]
        if scene.viewport.span is not None:
            low, high = nice_range(min(values), max(values))
            # If all values are at 100 %, the rounded range lies above them, where there is nothing.
            return min(low, 0.9) if high > 1.0 else low, min(high, 1.0), False
        return min(math.floor(min(values) * 10) / 10, 0.9), 1.0, False


def _waiting(scene: DisplayState) -> str:
    if scene.view.failure:
        return "no step was taken"
    if scene.view.state_detail.startswith("timing "):  # `trainer.training.autotune`; the header names the candidate
        return "finding the fastest precision, once"
    return "no steps yet" if scene.view.started else "waiting for the first step"


def _centred(text: str, width: int, height: int) -> list[Row]:
    rows: list[Row] = [[] for _ in range(height)]
    if rows:  # a pane of a tiny terminal has no rows
        rows[height // 2] = [(" " * max((width - len(text)) // 2, 0) + text, "dim")]
    return rows


def _events_at_cursor(area: Area, frame: Frame, marks: list[Mark], cursor: float | None) -> list[str]:
    """Events in the column of the cursor, newest first, without checkpoints."""
    if cursor is None:
        return []
    column = area.column_of(frame, cursor)
    found = [
        mark.text for mark in marks[-400:] if mark.kind != "checkpoint" and area.column_of(frame, mark.step) == column
    ]
    return [fmt.printable(text) for text in dict.fromkeys(reversed(found))]


def _draw_track(canvas: Canvas, area: Area, frame: Frame, marks: list[Mark], saved: str) -> list[str]:
    """Draw the run's events on the position axis; any other event hides a checkpoint. Returns each sign with its meaning."""
    seen: dict[int, str] = {}
    for mark in marks[-400:]:
        if not frame.left <= mark.step <= frame.right:
            continue
        letter, _ = _MARKS.get(mark.kind, (saved, ""))
        column = area.column_of(frame, mark.step)
        before = seen.get(column, saved)
        seen[column] = before if letter in (saved, before) else letter if before == saved else _SEVERAL
    for column, letter in seen.items():
        canvas.put(column, area.height, letter, "dim" if letter == saved else "warn")
    meanings = dict([*_MARKS.values(), (_SEVERAL, "several"), (saved, "saved")])
    return [f"{sign} {meaning}" for sign, meaning in meanings.items() if sign in seen.values()]
