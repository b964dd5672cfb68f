"""Held-out curves of several runs in one plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.run.view.overview import Point
from tui.drawing import format as fmt
from tui.drawing.canvas import Canvas, Row
from tui.drawing.step_axis import nice_step
from tui.state.compared_run import Compared
from tui.state.display_state import DisplayState
from tui.widgets.pane import Pane

if TYPE_CHECKING:
    from tui.drawing.plot import Area, Frame


class ComparisonPane(Pane, can_focus=False):
    """Held-out accuracy or loss of some runs, by epoch."""

    def __init__(self, measure: str, *, id: str) -> None:  # noqa: A002 - Textual's name
        """`measure` is `accuracy` or `loss`."""
        super().__init__(id=id)
        self.measure = measure
        self.compared: tuple[Compared, ...] = ()

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        title = f"Held-out {self.measure} by epoch"
        drawn = [(one, points) for one in self.compared if (points := one.points(self.measure))]
        if not drawn:
            body: list[Row] = [[], [("  no evaluation yet", "dim")]] if self.compared else []
            return self.frame(scene.glyphs, title, [], body, width, height)
        canvas = Canvas(max(width - 4, 1), max(height - 2, 1), braille=scene.glyphs.braille)
        _draw(canvas, scene, drawn, percent=self.measure == "accuracy")
        right: Row = []
        for one, points in drawn:
            value = fmt.percent(points[-1][1]) if self.measure == "accuracy" else fmt.number(points[-1][1])
            right += [(f"{one.label} ", "dim"), (f"{value} ", one.style)]
        legend = "  ".join(f"{one.label} {fmt.printable(one.run.run_dir.name)}" for one in self.compared)
        return self.frame(scene.glyphs, title, right, canvas.rows(), width, height, bottom=legend)


def _draw(
    canvas: Canvas, scene: DisplayState, drawn: list[tuple[Compared, tuple[Point, ...]]], *, percent: bool
) -> None:
    from tui.drawing.plot import GUTTER, Area, draw_axes, draw_line, draw_point
    from tui.drawing.pyramid import Pyramid

    area = Area(x=GUTTER, width=max(canvas.width - GUTTER, 1), height=max(canvas.height - 2, 1))
    frame = _frame([points for _, points in drawn], max(one.run.epochs for one, _ in drawn), percent=percent)
    draw_axes(canvas, area, frame, scene.glyphs, x_labels=_labels(frame, area), percent=percent)
    for one, points in drawn:
        draw_line(canvas, area, frame, Pyramid.of_points(points), one.style, thin=True)
    for one, points in drawn:
        draw_point(canvas, area, frame, *points[-1], one.label, one.style)


def _frame(curves: list[tuple[Point, ...]], epochs: int, *, percent: bool) -> Frame:
    from tui.drawing.plot import Frame, nice_range

    values = [value for points in curves for _, value in points]
    last = max(points[-1][0] for points in curves)
    low, high = nice_range(min(values), max(values))
    right = max(float(epochs), last, 1.0)  # a curve of a single point has its place in the plot, too
    return Frame(left=0.0, right=right, low=max(low, 0.0), high=min(high, 1.0) if percent else high)


def _labels(frame: Frame, area: Area) -> list[tuple[float, str]]:
    step = max(nice_step(frame.right / max(area.width // 8, 1)), 1.0)
    return [(number * step, f"{number * step:g}") for number in range(int(frame.right / step) + 1)]
