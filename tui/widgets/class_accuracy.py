"""Held-out accuracy of each class: bar, number, change since the last evaluation, worst first."""

from __future__ import annotations

from rich.cells import cell_len

from tui.drawing import format as fmt
from tui.drawing.canvas import Row, bar
from tui.state.class_results import ClassResult
from tui.state.display_state import DisplayState
from tui.state.pages import hint
from tui.widgets.pane import Pane


class ClassPane(Pane):
    """The per-class table, cut to the height of the pane."""

    page = "classes"

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        view = scene.view
        last = view.last_evaluation
        title = f"Per-class {view.selection_split} accuracy"
        if last is None:
            return self.notice(scene, title, waiting_text(scene), width, height)
        room = height - 2
        results = scene.class_results
        body = class_rows(scene, results[:room], width - 4)
        hidden = max(len(results) - room, 0)
        bottom = f"worst first{f', {hidden} more' if hidden else ''}  {hint('confusion')}  {hint('mistakes')}"
        right: Row = [(f"epoch {round(last.epoch, 2):g}", "dim")]
        return self.frame(scene.glyphs, title, right, body, width, height, bottom=bottom)


def waiting_text(scene: DisplayState) -> str:
    """Text of an empty table."""
    started = scene.view.started
    every = int(scene.view.config.get("eval", {}).get("every_epochs", 1))
    return f"first evaluation after epoch {min(every, started.epochs) if started else every}"


def class_rows(scene: DisplayState, results: list[ClassResult], width: int) -> list[Row]:
    """One row per class."""
    label_width = name_width(results, max(width // 3, 6))
    bar_width = max(width - label_width - 14, 3)
    return [[name_cell(result, label_width), *recall_cells(scene, result, bar_width)] for result in results]


def name_width(results: list[ClassResult], most: int) -> int:
    """Cells of the longest name, limited to `most`."""
    return min(max((cell_len(result.name) for result in results), default=0), most)


def recall_cells(scene: DisplayState, result: ClassResult, bar_width: int) -> Row:
    """Bar, number and change in at most `bar_width` + 13 cells; a short text for a class without images."""
    recall, change = result.score.recall, result.change
    if recall is None:
        return [(" no images", "dim")]
    row: Row = [(" ", "text"), *bar(recall, bar_width, scene.glyphs, "test"), (f" {fmt.percent(recall):>5}", "text")]
    if change is not None and abs(change) >= 0.0005:
        glyph = scene.glyphs.up if change > 0 else scene.glyphs.down
        row.append((f" {glyph}{abs(100 * change):.1f}", "good" if change > 0 else "warn"))
    return row


def name_cell(result: ClassResult, width: int) -> tuple[str, str]:
    """The name of a class, dimmed if it has no images."""
    return fmt.fit(result.name, width), "dim" if result.score.recall is None else "text"
