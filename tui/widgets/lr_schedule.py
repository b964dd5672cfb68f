"""The learning rate: what was, "now", and what is still to come, with the user's edits in it."""

from __future__ import annotations

from trainer.run.series import Series
from tui import format as fmt
from tui.canvas import Canvas, Row
from tui.decimate import Pyramid
from tui.plot import GUTTER, Area, Frame, draw_axes, draw_line, draw_points, nice_range
from tui.scene import Scene
from tui.widgets.pane import Pane


class LrPane(Pane):
    """The whole schedule."""

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The whole pane."""
        view = scene.view
        inner, rows = width - 4, height - 2
        steps, rates = view.planned_lr()
        if not steps:
            return self.frame(
                scene.glyphs,
                "Learning rate",
                [],
                [[("the schedule appears when training starts", "dim")]],
                width,
                height,
            )
        canvas = Canvas(inner, rows, braille=scene.glyphs.braille)
        with_axis = rows >= 5
        area = Area(x=GUTTER, width=inner - GUTTER, height=rows - (2 if with_axis else 0))
        top = max([*rates, max(view.lr.y, default=0.0)])
        low, high = nice_range(0.0, top or 1.0, steps=2)
        frame = Frame(left=0.0, right=float(max(view.total_steps - 1, 1)), low=low, high=high)
        labels = [(0.0, "epoch 0"), (frame.right, str(view.started.epochs if view.started else ""))]
        draw_axes(canvas, area, frame, scene.glyphs, x_labels=labels)
        draw_line(canvas, area, frame, _planned(steps, rates), "faint")
        draw_line(canvas, area, frame, scene.pyramid("lr"), "train")
        draw_points(
            canvas,
            area,
            frame,
            [float(step) for step, _ in view.lr_edits],
            [_rate_at(scene, s) for s, _ in view.lr_edits],
            "l",
            "warn",
        )
        if view.lr.last is not None:
            draw_points(canvas, area, frame, [view.lr.x[-1]], [view.lr.y[-1]], scene.glyphs.now, "accent")
        edits = len(view.lr_edits)
        bottom = f"{scene.glyphs.now} now" + (f"  l {edits} edit{'s' if edits > 1 else ''}" if edits else "")
        return self.frame(scene.glyphs, "Learning rate", lr_figures(scene), canvas.rows(), width, height, bottom=bottom)


def lr_figures(scene: Scene) -> Row:
    """The rate now and where it is going."""
    view = scene.view
    row: Row = [(fmt.rate(view.lr.last), "train")]
    steps, rates = view.planned_lr()
    ahead = next((rate for step, rate in zip(steps, rates, strict=True) if step > view.step), None)
    if ahead is not None and view.lr.last is not None and ahead != view.lr.last:
        rising = ahead > view.lr.last
        row.append((f"  {scene.glyphs.up if rising else scene.glyphs.down} {'rising' if rising else 'falling'}", "dim"))
    return row


def _planned(steps: list[float], rates: list[float]) -> Pyramid:
    series = Series()
    for step, rate in zip(steps, rates, strict=True):
        series.append(step, rate)
    pyramid = Pyramid()
    pyramid.follow(series)
    return pyramid


def _rate_at(scene: Scene, step: float) -> float:
    steps, rates = scene.view.planned_lr()
    return next((rate for at, rate in zip(steps, rates, strict=True) if at >= step), rates[-1])
