"""Keys that choose the visible steps of all curves, the axis, and the step whose values are shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tui.drawing.step_axis import AXES
from tui.state.display_state import DisplayState

_PANNED = 0.25  # fraction of the visible range per key press


class CurveKeys:
    """Acts on the curves of a dashboard; `actions` has a function per action of `tui.state.keys`."""

    def __init__(
        self, scene: DisplayState, steps_a_column: Callable[[], float], look_again: Callable[[], None]
    ) -> None:
        """`steps_a_column` returns the steps per cell of a curve, 0 if no shown pane depends on a step; `look_again` redraws."""
        self._scene = scene
        self._steps_a_column = steps_a_column
        self._look_again = look_again
        self.actions: dict[str, Callable[[], None]] = {
            "zoom_in": partial(self._zoom, 0.5),
            "zoom_out": partial(self._zoom, 2.0),
            "pan_left": partial(self._pan, -_PANNED),
            "pan_right": partial(self._pan, _PANNED),
            "cursor_left": partial(self._move_cursor, -1),
            "cursor_right": partial(self._move_cursor, 1),
            "x_axis": self._next_axis,
        }

    def _next_axis(self) -> None:
        self._scene.axis = AXES[(AXES.index(self._scene.axis) + 1) % len(AXES)]
        self._look_again()

    def _zoom(self, factor: float) -> None:
        """Show fewer or more steps, around the cursor or the newest step."""
        scene = self._scene
        if not self._steps_a_column():
            return
        around = scene.view.step if scene.viewport.cursor is None else scene.viewport.cursor
        scene.viewport.zoom(factor, around, scene.total)
        self._look_again()

    def _pan(self, share: float) -> None:
        if self._steps_a_column():
            self._scene.viewport.pan(share, self._scene.total)
            self._look_again()

    def _move_cursor(self, columns: int) -> None:
        steps = self._steps_a_column()
        if not steps:
            return
        steps = max(steps, 1.0)
        self._scene.viewport.move_cursor(columns * steps, float(self._scene.view.step), self._scene.total)
        self._look_again()
