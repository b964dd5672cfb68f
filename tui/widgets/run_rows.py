"""The table of the list of runs: only visible rows are created, so thousands cost no more than a screenful."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message
from textual.strip import Strip

from trainer.run.view.overview import RunOverview
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.widgets.runs_table import HEADINGS, cell
from tui.widgets.scroll_pane import ScrollingPane

_UNDER_CURSOR = "cursor:"  # prefix of the style of cells in the row under the cursor
Describe = Callable[[RunOverview], dict[str, tuple[str, str]]]  # text and style of a run's cells, by column


class RunRows(ScrollingPane, inherit_bindings=False):
    """Headings, and one row per run with a cursor."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"run-rows--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(binding for binding in ScrollingPane.BINDINGS if isinstance(binding, Binding) and "pagedown" not in binding.key),
        Binding("pagedown", "scroll_pages(1)"),
    ]  # fmt: skip

    class Moved(Message):
        """Posted when another run is under the cursor."""

    class Chosen(Message):
        """Posted when the run under the cursor was clicked on."""

    def __init__(self, describe: Describe, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.runs: Sequence[RunOverview] = ()
        self.columns: dict[str, int] = {}  # widths of the visible columns, without the blank on either side
        self._describe = describe
        self._cursor = self._top = 0
        self._was_moved = False

    @property
    def selected(self) -> RunOverview | None:
        """The run under the cursor; None if there are no runs."""
        return self.runs[self._cursor] if self.runs else None

    def set_runs(self, runs: Sequence[RunOverview], default: Callable[[RunOverview], bool]) -> None:
        """Show other runs. Once moved, the cursor stays with its run; before, it is at the `default` run or in the first row."""
        selected, self.runs = self.selected, runs
        if not self._was_moved:
            self._cursor = next((index for index, run in enumerate(runs) if default(run)), 0)
        elif selected is not None:
            path = selected.run_dir.path
            self._cursor = next((index for index, run in enumerate(runs) if run.run_dir.path == path), self._cursor)
        self._cursor = max(min(self._cursor, len(runs) - 1), 0)

    def move(self, rows: int) -> None:
        before, self._cursor = self._cursor, max(min(self._cursor + rows, len(self.runs) - 1), 0)
        self._was_moved = True
        if self._cursor != before:
            self.post_message(self.Moved())

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        room = max(height - 1, 1)
        self._top = max(min(self._top, self._cursor, len(self.runs) - room), self._cursor - room + 1, 0)
        head: Row = [(cell(name, HEADINGS[name], size), "dim") for name, size in self.columns.items()]
        shown = range(self._top, min(self._top + room, len(self.runs)))
        return [head, *(self._row(index, width) for index in shown)]

    def _row(self, index: int, width: int) -> Row:
        cells = self._describe(self.runs[index])
        row: Row = [(cell(name, cells[name][0], size), cells[name][1]) for name, size in self.columns.items()]
        if index != self._cursor:
            return row
        row.append((" " * max(width - sum(size + 2 for size in self.columns.values()), 0), "text"))
        return [(text, _UNDER_CURSOR + style) for text, style in row]

    def _strip(self, row: Row) -> Strip:
        if not row or not row[0][1].startswith(_UNDER_CURSOR):
            return super()._strip(row)
        plain = super()._strip([(text, style.removeprefix(_UNDER_CURSOR)) for text, style in row])
        found = self.get_component_rich_style("run-rows--cursor")
        over = Style(bgcolor=found.bgcolor, bold=True, reverse=found.reverse)
        return Strip([Segment(text, (style or Style()) + over) for text, style, _ in plain])

    def on_click(self, event: Click) -> None:
        """Move the cursor to the clicked row; a click on the row under the cursor chooses the run."""
        index = self._top + event.y - 1
        if event.y < 1 or index >= len(self.runs):
            return
        if index == self._cursor:
            self.post_message(self.Chosen())
        self.action_scroll_rows(index - self._cursor)
