"""The last events: epochs, evaluations, saves, exports, warnings."""

from __future__ import annotations

from trainer.run.view import Note
from tui import format as fmt
from tui.canvas import Row
from tui.scene import Scene
from tui.widgets.pane import Pane

NOTE_STYLES = {"info": "text", "good": "good", "warning": "warn", "error": "bad"}


class EventsPane(Pane, can_focus=False):
    """Newest at the bottom; two columns where there is room."""

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The whole pane."""
        columns = 2 if width >= 110 else 1
        notes = list(scene.view.notes)[-columns * height :]
        if not notes:
            return [[(" events appear here", "dim")]]
        column_width = width // columns
        rows: list[Row] = [[] for _ in range(height)]
        for index, note in enumerate(notes):
            rows[index % height] += note_row(note, column_width)
        return rows


def note_row(note: Note, width: int) -> Row:
    """One event in `width` cells."""
    text = fmt.literal(" ".join(note.text.split()))
    return [(f" {fmt.clock(note.time)}  ", "dim"), (fmt.fit(text, width - 12), NOTE_STYLES[note.level]), (" ", "text")]
