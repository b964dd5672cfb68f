"""Visible range of steps and cursor of the curves. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_SHORTEST = 10.0  # smallest number of visible steps: a closer zoom shows nothing more


@dataclass
class Viewport:
    """Visible range (None for all steps) and cursor (None for the newest step), shared by all curves of a run."""

    span: tuple[float, float] | None = None
    cursor: float | None = None

    def edges(self, total: float) -> tuple[float, float]:
        """First and last visible step of a run with `total` steps."""
        return self.span or (0.0, total)

    def zoom(self, factor: float, around: float, total: float) -> None:
        """Multiply the number of visible steps, with `around` kept in place as far as the ends of the run allow."""
        left, right = self.edges(total)
        width = max((right - left) * factor, min(_SHORTEST, total))
        share = min(max((around - left) / (right - left), 0.0), 1.0)
        self._show(left + share * (right - left) - share * width, width, total)

    def pan(self, share: float, total: float) -> None:
        """Shift the visible range by a share of its width, to later steps when positive."""
        left, right = self.edges(total)
        self._show(left + share * (right - left), right - left, total)

    def move_cursor(self, steps: float, newest: float, total: float) -> None:
        """Move the cursor to later steps, or earlier when negative, and the range with it; at `newest` it follows the run."""
        at = (newest if self.cursor is None else self.cursor) + steps
        self.cursor = None if at >= newest or newest < 1.0 else max(at, 1.0)
        left, right = self.edges(total)
        seen = newest if self.cursor is None else self.cursor
        if not left <= seen <= right:
            self._show(seen - (right - left) / 2, right - left, total)

    def keep_within(self, newest: float, total: float) -> None:
        """Drop a cursor at steps that no longer exist after a rollback, and edges beyond the run."""
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
