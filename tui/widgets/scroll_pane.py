"""Base of panes with more rows than fit: keys and wheel."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.events import MouseScrollDown, MouseScrollUp

from tui.widgets.pane import Pane

_WHEEL_ROWS = 3
_Item = TypeVar("_Item")


class ScrollingPane(Pane):
    """A pane that scrolls by rows and by pages."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_rows(-1)"), Binding("down,j", "scroll_rows(1)"),
        Binding("pageup", "scroll_pages(-1)"), Binding("pagedown,space", "scroll_pages(1)"),
        Binding("home,g", "scroll_pages(-1000000)"), Binding("end,G", "scroll_pages(1000000)"),
    ]  # fmt: skip

    def move(self, rows: int) -> None:
        """Scroll by some rows, down when positive; `rows_for` sets bounds."""
        raise NotImplementedError

    def action_scroll_rows(self, rows: int) -> None:
        self.move(rows)
        if self._scene is not None:
            self.paint(self._scene)

    def action_scroll_pages(self, pages: int) -> None:
        self.action_scroll_rows(pages * max(self.size.height - 3, 1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.action_scroll_rows(-_WHEEL_ROWS)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.action_scroll_rows(_WHEEL_ROWS)


class TablePane(ScrollingPane):
    """A title, fixed lines, and rows that scroll below them."""

    _first = 0  # index of the first visible item

    def move(self, rows: int) -> None:
        self._first += rows

    def rewind(self) -> None:
        self._first = 0

    def in_sight(self, items: list[_Item], room: int) -> tuple[list[_Item], str]:
        """The visible items, and their position among all, after a gap; an empty text if all are visible."""
        room = max(room, 1)
        self._first = max(0, min(self._first, len(items) - room))
        shown = items[self._first : self._first + room]
        place = f"  {self._first + 1:,}-{self._first + len(shown):,} of {len(items):,}"
        return shown, place if len(shown) < len(items) else ""
