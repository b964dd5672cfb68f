"""Which steps the curves show, and at which of them they are read. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_SHORTEST = 10.0
"""Steps: a closer look shows nothing more."""


@dataclass
class Viewport:
    """Shared by all curves of a run.

    Attributes:
        span: First and last step that are shown; None for all of them.
        cursor: The step that values are read at; None for the newest one.
    """

    span: tuple[float, float] | None = None
    cursor: float | None = None

    def edges(self, total: float) -> tuple[float, float]:
        """First and last step that are shown, of a run of so many."""
        return self.span or (0.0, total)

    def zoom(self, factor: float, around: float, total: float) -> None:
        """Show fewer steps, or more, with one of them left where it is.

        Args:
            factor: Of the number of steps; below 1 to come closer.
            around: The step that stays, as near as the ends of the run allow.
            total: Steps of the run.
        """
        left, right = self.edges(total)
        width = max((right - left) * factor, min(_SHORTEST, total))
        share = min(max((around - left) / (right - left), 0.0), 1.0)
        self._show(left + share * (right - left) - share * width, width, total)

    def pan(self, share: float, total: float) -> None:
        """Move what is shown by a share of itself, to later steps when positive."""
        left, right = self.edges(total)
        self._show(left + share * (right - left), right - left, total)

    def move_cursor(self, steps: float, newest: float, total: float) -> None:
        """Read the values some steps later, or earlier when negative; from the newest step on, the newest values again.

        Args:
            steps: To move by.
            newest: Step of the run.
            total: Steps of the run; what is shown moves along when the cursor leaves it.
        """
        at = (newest if self.cursor is None else self.cursor) + steps
        self.cursor = None if at >= newest or newest < 1.0 else max(at, 1.0)
        left, right = self.edges(total)
        seen = newest if self.cursor is None else self.cursor
        if not left <= seen <= right:
            self._show(seen - (right - left) / 2, right - left, total)

    def keep_within(self, newest: float, total: float) -> None:
        """Forget a cursor at steps that are not there any more, after a return to an earlier one, and edges beyond the run."""
        if self.cursor is not None and self.cursor >= newest:
            self.cursor = None
        if self.span is not None and self.span[1] > total:
            left, right = self.span
            self._show(left, right - left, total)

    def _show(self, left: float, width: float, total: float) -> None:
        if width >= total:
            self.span = None
            return
        left = min(max(left, 0.0), total - width)
        self.span = left, left + width
