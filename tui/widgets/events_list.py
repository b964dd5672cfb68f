"""The last events: epochs, evaluations, saves, exports, warnings; above them problems of the run, or the error that ended it."""

from __future__ import annotations

from rich.cells import cell_len

from trainer.run.view.run_view import Note
from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.display_state import DisplayState
from tui.widgets.pane import Pane, wrapped

NOTE_STYLES = {"info": "text", "good": "good", "warning": "warn", "error": "bad"}
VERDICT_STYLES = {"info": "dim", "warning": "warn", "error": "bad"}


class EventsPane(Pane, can_focus=False):
    """Newest at the bottom; two columns where there is room."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        above = [verdict] if (verdict := verdict_row(scene, width)) else []
        return [*above, *self._notes(scene, width, height - len(above))]

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


class FailurePane(Pane, can_focus=False):
    """Shown over the events when the run has failed."""

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        failure = scene.view.failure
        if failure is None:
            return []
        lines = [line for paragraph in failure.error.split("\n") for line in wrapped(paragraph, width - 4)]
        body: list[Row] = [[(line, "bad" if index == 0 else "text")] for index, line in enumerate(lines)]
        if failure.checkpoint:
            body.append([("last good checkpoint ", "dim"), (failure.checkpoint, "text")])
        if failure.resume:
            body.append([("resume with ", "dim"), (fmt.printable(failure.resume), "accent")])
        room = height - 2
        if len(body) > room:
            body = [*body[: room - 1], [("… log.txt has the rest", "dim")]]
        bottom = f"q leaves with exit code {failure.exit_code}"
        return self.frame(scene.glyphs, "Failed", [], body, width, height, bottom)


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
