"""Loss and accuracy over the run: training as a line, evaluations as points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainer.run.view import Mark
from tui import format as fmt
from tui.canvas import Canvas, Row
from tui.scene import Scene
from tui.widgets.pane import Pane

if TYPE_CHECKING:
    from tui.plot import Area, Frame

_FAR_ABOVE = 1.5
"""An evaluation this many times above the highest training loss and the newest evaluation is left off the scale."""
_MARKS = {"lr": "l", "resume": "r", "pause": "p"}


class CurvePane(Pane):
    """Base of the two panes: frame, line, points, event track."""

    name_of_curve = ""

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The whole pane."""
        title, right = self.name_of_curve.capitalize(), self.figures(scene)
        inner, rows = width - 4, height - 2
        if not len(scene.view.train_loss):
            return self.frame(scene.glyphs, title, [], _centred(_waiting(scene), inner, rows), width, height)
        canvas = Canvas(inner, rows, braille=scene.glyphs.braille)
        some_above = self._draw(canvas, scene)
        legend = self._legend(scene, some_above=some_above)
        return self.frame(scene.glyphs, title, right, canvas.rows(), width, height, bottom=legend)

    def figures(self, scene: Scene) -> Row:
        """The numbers in the upper border."""
        raise NotImplementedError

    def value_range(self, scene: Scene, right_edge: float) -> tuple[float, float, bool]:
        """Lowest and highest value of the axis, and whether it is logarithmic."""
        raise NotImplementedError

    def evaluated(self, scene: Scene) -> tuple[list[float], list[float]]:
        """Steps and values of the evaluations."""
        series = {"loss": scene.view.eval_loss, "accuracy": scene.view.eval_accuracy}[self.name_of_curve]
        found = series.get(scene.view.selection_split)
        return (list(found.x), list(found.y)) if found else ([], [])

    def _draw(self, canvas: Canvas, scene: Scene) -> bool:
        """Returns whether some evaluations lie above the axis."""
        # Here: the first frame must not wait for numpy.
        from tui.plot import GUTTER, Area, Frame, draw_axes, draw_line, draw_marks, draw_point

        view, glyphs = scene.view, scene.glyphs
        with_axis = canvas.height >= 6
        area = Area(x=GUTTER, width=canvas.width - GUTTER, height=canvas.height - (2 if with_axis else 0))
        right = float(max(view.total_steps, view.step, 1))
        low, high, log = self.value_range(scene, right)
        frame = Frame(left=0.0, right=right, low=low, high=high, log=log)
        draw_axes(
            canvas, area, frame, glyphs, x_labels=_epoch_labels(scene, area), percent=self.name_of_curve == "accuracy"
        )
        raw = scene.pyramid(self.name_of_curve)
        if scene.smoothing:
            draw_line(canvas, area, frame, raw, "raw")
            draw_line(canvas, area, frame, scene.pyramid(f"~{self.name_of_curve}"), "train", thin=True)
        else:
            draw_line(canvas, area, frame, raw, "train")
        steps, values = self.evaluated(scene)
        for step, value in zip(steps, values, strict=True):
            draw_point(canvas, area, frame, step, value, glyphs.point if value <= high else glyphs.above, "test")
        if view.best:
            best = view.best.accuracy if self.name_of_curve == "accuracy" else view.best.loss
            if best is not None and best <= high:
                draw_point(canvas, area, frame, view.best.step, best, glyphs.best, "good")
        draw_marks(canvas, area, frame, raw, glyphs)
        if with_axis:
            _draw_track(canvas, area, frame, view.marks, glyphs.mark)
        return any(value > high for value in values)

    def _legend(self, scene: Scene, *, some_above: bool) -> str:
        glyphs = scene.glyphs
        split = scene.view.selection_split
        flatters = split == "test" and self.name_of_curve == "accuracy"
        parts = [f"{glyphs.point} {split}", f"{glyphs.best} best" + (", chosen on test" if flatters else "")]
        if some_above:
            parts.append(f"{glyphs.above} above the axis")
        if any(mark.kind == "checkpoint" for mark in scene.view.marks):
            parts.append(f"{glyphs.mark} saved")
        if scene.smoothing:
            parts.append(f"smoothed {scene.smoothing:g}")
        if scene.view.nonfinite_steps:
            parts.append(f"{glyphs.not_a_number} not finite")
        return "  ".join(parts)


class LossPane(CurvePane):
    """Cross-entropy."""

    name_of_curve = page = "loss"

    def figures(self, scene: Scene) -> Row:
        """Newest training and held-out loss."""
        last = scene.view.last_evaluation
        row: Row = [("train ", "dim"), (fmt.number(scene.latest("loss")), "train")]
        if last:
            row += [(f"  {last.split} ", "dim"), (fmt.number(last.loss), "test")]
        return row

    def value_range(self, scene: Scene, right_edge: float) -> tuple[float, float, bool]:
        """From 0 (or the lowest decade) to the highest training loss, and to the evaluations that are not far above it.

        The first evaluations, with batch norm's first statistics, can lie so high that they would press every curve flat.
        The newest is always on the scale.
        """
        from tui.plot import nice_range

        extent = scene.pyramid("loss").extent(0.0, right_edge)
        values = [value for value in self.evaluated(scene)[1] if math.isfinite(value)]
        low, high = extent or (0.0, 1.0)
        ceiling = _FAR_ABOVE * max(high, *values[-1:], 0.0)
        values = [value for value in values if value <= ceiling]
        low, high = min([low, *values]), max([high, *values])
        if scene.log_scale and high > 0:
            floor = max(low, high * 1e-6)
            return 10.0 ** math.floor(math.log10(floor)), 10.0 ** math.ceil(math.log10(high) + 1e-9), True
        return (*nice_range(0.0 if low > 0 else low, high), False)


class AccuracyPane(CurvePane):
    """Top-1."""

    name_of_curve = page = "accuracy"

    def figures(self, scene: Scene) -> Row:
        """Newest training, held-out and best accuracy in percent; flip-TTA apart from plain."""
        last, best = scene.view.last_evaluation, scene.view.best
        row: Row = [("train ", "dim"), (fmt.percent(scene.latest("accuracy")), "train")]
        if last:
            row += [(f"  {last.split} ", "dim"), (fmt.percent(last.accuracy), "test")]
            if last.accuracy_tta is not None:
                row += [("  tta ", "dim"), (fmt.percent(last.accuracy_tta), "test")]
        if best:
            row += [("  best ", "dim"), (fmt.percent(best.accuracy), "good")]
        return row

    def value_range(self, scene: Scene, right_edge: float) -> tuple[float, float, bool]:
        """0 to 100 %, or from the lowest multiple of ten once everything lies high."""
        extent = scene.pyramid(scene.accuracy_name()).extent(0.0, right_edge)
        values = [extent[0] if extent else 0.0, *self.evaluated(scene)[1]]
        return min(math.floor(min(values) * 10) / 10, 0.9), 1.0, False


def _waiting(scene: Scene) -> str:
    if scene.view.failure:
        return "no step was taken"
    return "no steps yet" if scene.view.started else "waiting for the first step"


def _centred(text: str, width: int, height: int) -> list[Row]:
    rows: list[Row] = [[] for _ in range(height)]
    if height:
        rows[height // 2] = [(" " * max((width - len(text)) // 2, 0) + text, "dim")]
    return rows


def _epoch_labels(scene: Scene, area: Area) -> list[tuple[float, str]]:
    started = scene.view.started
    if not started:
        return []
    wanted = max(min(started.epochs, area.width // 8), 1)
    stride = max(math.ceil(started.epochs / wanted), 1)
    for nice in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000):
        if nice >= stride:
            stride = nice
            break
    numbers = [*range(0, started.epochs + 1, stride)]
    return [(float(n * started.steps_per_epoch), f"{n}" if n else "epoch 0") for n in numbers]


def _draw_track(canvas: Canvas, area: Area, frame: Frame, marks: list[Mark], saved: str) -> None:
    """Events of the run on the position axis."""
    for mark in marks[-400:]:
        style = "dim" if mark.kind == "checkpoint" else "warn"
        canvas.put(area.column_of(frame, mark.step), area.height, _MARKS.get(mark.kind, saved), style)
