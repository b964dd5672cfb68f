"""Key actions on all curves of a dashboard at once: the visible steps and the cursor."""

from __future__ import annotations

from abc import abstractmethod

from tui.drawing.step_axis import AXES
from tui.state.display_state import DisplayState

_PANNED = 0.25
"""Fraction of the visible range that one key press pans by."""


class CurveActions:
    """The part of the dashboard that handles these keys."""

    _scene: DisplayState

    @abstractmethod
    def look_again(self) -> None:
        """Redraw every pane that shows steps or follows the cursor."""

    @abstractmethod
    def steps_a_column(self) -> float:
        """Steps per cell of a curve; one epoch without a curve, 0 if nothing depends on a step."""

    def action_zoom_in(self) -> None:
        """Show fewer steps, around the cursor or the newest step."""
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
        """Move the cursor to an earlier step."""
        self._move_cursor(-1)

    def action_cursor_right(self) -> None:
        """Move the cursor to a later step."""
        self._move_cursor(1)

    def action_x_axis(self) -> None:
        """Switch the axis between epochs, steps and time."""
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
