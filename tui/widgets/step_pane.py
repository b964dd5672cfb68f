"""Base of panes that show steps from left to right: zoom, and cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click, MouseEvent, MouseScrollDown, MouseScrollUp
from textual.message import Message

from tui.drawing.canvas import Canvas, Row
from tui.drawing.step_axis import place_of, step_labels
from tui.state.display_state import DisplayState
from tui.widgets.pane import Pane

if TYPE_CHECKING:
    from tui.drawing.plot import Area, Frame

_WHEEL_FACTOR = 1.5


class StepPane(Pane):
    """A pane with steps from left to right: the wheel zooms in at the step under it, or out; a click moves the cursor."""

    follows_cursor = True

    BINDINGS: ClassVar[list[BindingType]] = [Binding("left", "arrow(-1)"), Binding("right", "arrow(1)")]

    class ViewportChanged(Message):
        """Posted after a change of the visible steps or the cursor."""

    async def action_arrow(self, direction: int) -> None:
        if self.has_class("zoomed"):
            await self.run_action("screen.curves('cursor_right')" if direction > 0 else "screen.curves('cursor_left')")
        else:
            await self.run_action("app.key('next_pane')" if direction > 0 else "app.key('previous_pane')")

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._zoom_at(event, 1 / _WHEEL_FACTOR)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._zoom_at(event, _WHEEL_FACTOR)

    def on_click(self, event: Click) -> None:
        """Move the cursor there; right of the newest step, follow the newest."""
        if self._scene is not None:
            at, newest = self._step_under(event, self._scene), float(self._scene.view.step)
            self._scene.viewport.cursor = at if at < newest else None
            self.post_message(self.ViewportChanged())

    def _zoom_at(self, event: MouseEvent, factor: float) -> None:
        event.stop()
        if self._scene is not None:
            self._scene.viewport.zoom(factor, self._step_under(event, self._scene), self._scene.total)
            self.post_message(self.ViewportChanged())

    def _step_under(self, event: MouseEvent, scene: DisplayState) -> float:
        from tui.drawing.plot import GUTTER

        left, right = scene.viewport.edges(scene.total)
        width = max(self.size.width - 4 - GUTTER, 1)
        return left + (right - left) * min(max((event.x - 2 - GUTTER + 0.5) / width, 0.0), 1.0)


def step_plot(
    canvas: Canvas, scene: DisplayState, low: float, high: float, *, log: bool = False, percent: bool = False,
    with_axis: bool = True,
) -> tuple[Area, Frame]:  # fmt: skip
    """Draw the axes of the visible steps and of values from `low` to `high`; returns the place of the plot, and what it shows."""
    from tui.drawing.plot import GUTTER, Area, Frame, draw_axes

    left, right = scene.viewport.edges(scene.total)
    area = Area(x=GUTTER, width=canvas.width - GUTTER, height=canvas.height - (2 if with_axis else 0))
    frame = Frame(left=left, right=right, low=low, high=high, log=log)
    labels = step_labels(scene.view, left, right, area.width, axis=scene.axis)
    draw_axes(canvas, area, frame, scene.glyphs, x_labels=labels, percent=percent)
    return area, frame


def cursor_figures(scene: DisplayState) -> Row:
    """Position of the cursor in the unit of the axis; empty at the newest step."""
    cursor = scene.viewport.cursor
    if cursor is None or scene.view.started is None:
        return []
    place = place_of(scene.view, cursor, scene.viewport.edges(scene.total), scene.axis)
    return [(f"at {place}  ", "accent")]
