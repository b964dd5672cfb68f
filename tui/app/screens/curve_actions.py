"""What keys do to all curves of a dashboard at once: which steps they show, and at which of them they are read."""

from __future__ import annotations

from abc import abstractmethod

from tui.drawing.step_axis import AXES
from tui.state.display_state import DisplayState

_PANNED = 0.25
"""Of what curves show, by one key."""


class CurveActions:
    """The part of the dashboard that these keys act on."""

    _scene: DisplayState

    @abstractmethod
    def look_again(self) -> None:
        """Draw what shows steps, or is read at one."""

    @abstractmethod
    def steps_a_column(self) -> float:
        """How many steps a cell of a curve stands for; an epoch without a curve, and 0 where nothing is read at a step."""

    def action_zoom_in(self) -> None:
        """Show fewer steps, around the cursor or the newest one."""
        self._zoom_curves(0.5)

    def action_zoom_out(self) -> None:
        """Show more steps."""
        self._zoom_curves(2.0)

    def action_pan_left(self) -> None:
        """Show earlier steps."""
        self._pan(-_PANNED)

    def action_pan_right(self) -> None:
        """Show later steps."""
        self._pan(_PANNED)

    def action_cursor_left(self) -> None:
        """Read the curves at an earlier step."""
        self._move_cursor(-1)

    def action_cursor_right(self) -> None:
        """Read them at a later step."""
        self._move_cursor(1)

    def action_x_axis(self) -> None:
        """Count epochs, steps, or time."""
        self._scene.axis = AXES[(AXES.index(self._scene.axis) + 1) % len(AXES)]
        self.look_again()

    def _zoom_curves(self, factor: float) -> None:
        scene = self._scene
        if not self.steps_a_column():
            return
        around = scene.view.step if scene.viewport.cursor is None else scene.viewport.cursor
        scene.viewport.zoom(factor, around, scene.total)
        self.look_again()

    def _pan(self, share: float) -> None:
        if self.steps_a_column():
            self._scene.viewport.pan(share, self._scene.total)
            self.look_again()

    def _move_cursor(self, columns: int) -> None:
        steps = self.steps_a_column()
        if not steps:
            return
        steps = max(steps, 1.0)
        self._scene.viewport.move_cursor(columns * steps, float(self._scene.view.step), self._scene.total)
        self.look_again()
