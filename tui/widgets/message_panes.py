"""Panes with more lines than fit: the run's messages, and the output of libraries."""

from __future__ import annotations

from typing import ClassVar

from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.widgets.events_list import NOTE_STYLES
from tui.widgets.pane import wrapped
from tui.widgets.scroll_pane import ScrollingPane


class ScrolledPane(ScrollingPane):
    """Shows the last lines and follows new ones, unless it is scrolled up."""

    title: ClassVar[str]
    empty: ClassVar[str]  # text if there are no lines
    _from_end = _total = 0  # lines below the visible ones, lines in all

    def lines_for(self, scene: DisplayState, width: int) -> list[Row]:
        """All lines, in rows of at most `width` cells, the oldest first."""
        raise NotImplementedError

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        lines = self.lines_for(scene, width - 4)
        if self._from_end:
            self._from_end += len(lines) - self._total  # the lines on the screen keep their place
        self._total = len(lines)
        room = max(height - 2, 1)
        self._from_end = max(0, min(self._from_end, len(lines) - room))
        end = len(lines) - self._from_end
        shown = lines[max(end - room, 0) : end] or [[(self.empty, "dim")]]
        place: Row = [(f"{end:,} of {len(lines):,}", "dim")] if len(lines) > room else []
        bottom = "new lines below: end" if self._from_end else ""
        return self.frame(scene.glyphs, self.title, place, shown, width, height, bottom)

    def move(self, rows: int) -> None:
        self._from_end -= rows


class NotesPane(ScrolledPane):
    """All events that have a text."""

    title = "Messages"
    empty = "none yet"

    def lines_for(self, scene: DisplayState, width: int) -> list[Row]:
        rows: list[Row] = []
        for note in scene.view.notes:
            for index, part in enumerate(wrapped(" ".join(note.text.split()), width - 10)):
                begin = fmt.clock(note.time) if index == 0 else ""
                rows.append([(f"{begin:10}", "dim"), (part, NOTE_STYLES[note.level])])
        return rows


class OutputPane(ScrolledPane):
    """The end of `log.txt`."""

    title = "Printed by libraries (log.txt)"
    empty = "nothing"

    def lines_for(self, scene: DisplayState, width: int) -> list[Row]:
        return [[(part, "text")] for line in scene.output for part in wrapped(line, width)]
