"""The learning rate: past values, "now", and the planned schedule, including the user's edits."""

from __future__ import annotations

import math

from tui.drawing import format as fmt
from tui.drawing.canvas import Canvas, Row
from tui.state.display_state import DisplayState
from tui.widgets.step_pane import StepPane, cursor_figures, step_plot


class LrPane(StepPane):
    """The whole schedule."""

    page = "lr"

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        view = scene.view
        if view.started is None:
            return self.notice(scene, "Learning rate", "appears when training starts", width, height)
        canvas = Canvas(width - 4, height - 2, braille=scene.glyphs.braille)
        _draw(canvas, scene)
        edits = len(view.lr_edits)
        bottom = f"{scene.glyphs.now} now" + (f"  l {edits} edit{'s' if edits > 1 else ''}" if edits else "")
        figures = lr_figures(scene, cursor=True)
        return self.frame(scene.glyphs, "Learning rate", figures, canvas.rows(), width, height, bottom=bottom)


def _draw(canvas: Canvas, scene: DisplayState) -> None:
    from tui.drawing.plot import draw_cursor, draw_line, draw_point, nice_range

    view, past, plan = scene.view, scene.pyramid("lr"), scene.planned_pyramid()
    tops = [extent[1] for pyramid in (past, plan) if (extent := pyramid.extent(0.0, scene.total))]
    low, high = nice_range(0.0, max(tops, default=1.0), steps=2)
    area, frame = step_plot(canvas, scene, low, high, with_axis=canvas.height >= 5)
    draw_line(canvas, area, frame, plan, "faint")
    draw_line(canvas, area, frame, past, "train")
    for step, _ in view.lr_edits:
        draw_point(canvas, area, frame, float(step), _rate_at(scene, step), "l", "warn")
    if view.lr.last is not None:
        draw_point(canvas, area, frame, view.lr.x[-1], view.lr.last, scene.glyphs.now, "accent")
    draw_cursor(canvas, area, frame, scene.glyphs, scene.viewport.cursor)


def lr_figures(scene: DisplayState, *, cursor: bool) -> Row:
    """The rate now, and whether it rises or falls next; or the rate at the cursor, in a pane that shows it."""
    view = scene.view
    if cursor and scene.viewport.cursor is not None:
        return [*cursor_figures(scene), (fmt.rate(scene.value_of("lr")), "train")]
    row: Row = [(fmt.rate(view.lr.last), "train")]
    steps, rates = view.planned_lr()
    ahead = next((rate for step, rate in zip(steps, rates, strict=True) if step > view.step), None)
    if ahead is not None and view.lr.last is not None and not math.isclose(ahead, view.lr.last, rel_tol=1e-4):
        rising = ahead > view.lr.last
        row.append((f"  {scene.glyphs.up if rising else scene.glyphs.down} {'rising' if rising else 'falling'}", "dim"))
    return row


def _rate_at(scene: DisplayState, step: float) -> float:
    steps, rates = scene.view.planned_lr()
    return next((rate for at, rate in zip(steps, rates, strict=True) if at > step), rates[-1])
