"""The last events: epochs, evaluations, saves, exports, warnings; above them the problems of the run."""

from __future__ import annotations

from rich.cells import cell_len

from trainer.run.view.run_view import Note
from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.widgets.pane import Pane

NOTE_STYLES = {"info": "text", "good": "good", "warning": "warn", "error": "bad"}
VERDICT_STYLES = {"info": "dim", "warning": "warn", "error": "bad"}


class EventsPane(Pane, can_focus=False):
    """Newest at the bottom; two columns where there is room."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        verdict = verdict_row(scene, width)
        if verdict:
            return [verdict, *self._notes(scene, width, height - 1)]
        return self._notes(scene, width, height)

    def _notes(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        columns = 2 if width >= 110 else 1
        notes = list(scene.view.notes)[-columns * height :]
        if not notes:
            return [[(" events appear here", "dim")]]
        column_width = width // columns
        rows: list[Row] = [[] for _ in range(height)]
        for index, note in enumerate(notes):
            rows[index % height] += note_row(note, column_width)
        return rows


def verdict_row(scene: DisplayState, width: int) -> Row:
    """The worst problem of the run, with as much evidence and remedy as fits; empty if there is none."""
    if scene.behind or not scene.verdicts:
        return []
    found = scene.verdicts[0]
    what = f" {scene.glyphs.warning if found.level != 'info' else ' '} {fmt.printable(found.text)}"
    for rest in (f": {found.evidence}.  {found.remedy}", f": {found.remedy}", ""):
        if cell_len(what + rest) <= width:
            break
    return [(what, VERDICT_STYLES[found.level]), (fmt.fit(rest, max(width - cell_len(what), 0)), "dim")]


def note_row(note: Note, width: int) -> Row:
    """One event in `width` cells."""
    text = fmt.printable(" ".join(note.text.split()))
    return [(f" {fmt.clock(note.time)}  ", "dim"), (fmt.fit(text, width - 12), NOTE_STYLES[note.level]), (" ", "text")]
