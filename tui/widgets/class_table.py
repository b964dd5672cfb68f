"""Every class in full: accuracy with its interval, precision, confused classes, and trend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len

from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.class_results import ClassResult, recalls
from tui.state.display_state import DisplayState
from tui.widgets.class_accuracy import name_cell, name_width, recall_cells, waiting_text
from tui.widgets.pane import wrapped
from tui.widgets.scroll_pane import TablePane

_LONGEST_BAR = 24
_SHORTEST_BAR = 6
_RECALL = 14  # cells of number and change beside the bar
_TREND = 12
_CLASS = "class"
_LEAST_CONFUSIONS = 20
_WIDE_CONFUSIONS = 40

_EXPLANATION = (
    "accuracy (recall): of the class's images, how many were recognised; with the change since the previous evaluation",
    "95 %: where that share would lie if there were very many images of this kind",
    "precision: share of the predictions of this class that are right",
    "confused with: the classes predicted instead, for images not recognised",
    "trend: accuracy of the newest evaluations, each row from its own lowest to its own highest",
)


@dataclass(frozen=True)
class _Column:
    """A column to the right of the accuracy; its width includes the gap before it."""

    title: str
    width: int
    cell: Callable[[ClassResult], str]


class ClassTable(TablePane):
    """One row per class, worst first."""

    page = "classes"

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        title = f"Classes on {scene.view.selection_split}"
        last, results = scene.view.last_evaluation, scene.class_results
        if last is None or not results:
            return self.notice(scene, title, waiting_text(scene), width, height)
        inner = width - 4
        names = max(name_width(results, max(inner // 4, 8)), len(_CLASS))
        columns = _columns_that_fit(scene, inner - names - _SHORTEST_BAR - _RECALL)
        bar = min(inner - names - _RECALL - sum(column.width for column in columns), _LONGEST_BAR)
        shown, place = self.in_sight(results, height - 3)
        body = [_head(names, bar, columns), *(_row(scene, result, names, bar, columns) for result in shown)]
        body += _explanations(columns, inner, height - 2 - len(body))
        epoch = f"  epoch {round(last.epoch, 2):g}"
        right: Row = [("all ", "dim"), (fmt.percent(last.accuracy), "test"), (epoch, "dim"), (place, "dim")]
        return self.frame(scene.glyphs, title, right, body, width, height, bottom="worst first")


def _explanations(columns: list[_Column], width: int, room: int) -> list[Row]:
    """Explanations of the visible columns, if the table leaves room for them."""
    shown = ["accuracy", *(column.title.partition(",")[0] for column in columns)]
    texts = [text for text in _EXPLANATION if any(text.startswith(title) for title in shown)]
    lines = [line for text in texts for line in wrapped(text, width)]
    return [[], *([(line, "dim")] for line in lines)] if len(lines) < room else []


def _columns_that_fit(scene: DisplayState, room: int) -> list[_Column]:
    """The columns that fit; the most informative have priority."""
    from tui.drawing.sparkline import as_ticks

    view = scene.view
    trend = _Column("trend", _TREND + 2, lambda result: as_ticks(recalls(view, result.label, _TREND), scene.glyphs))
    by_worth = [
        _Column("95 %", 13, _interval),
        _Column("precision", 11, lambda result: fmt.percent(result.score.precision)),
        _Column("images", 9, lambda result: f"{result.score.images:,}"),
        trend,
    ]
    chosen: list[_Column] = []
    for column in by_worth:
        if sum(other.width for other in chosen) + column.width + _LEAST_CONFUSIONS <= room:
            chosen.append(column)
    left = room - sum(column.width for column in chosen)
    if left < _LEAST_CONFUSIONS:
        return chosen
    width = left - min(max(left - _WIDE_CONFUSIONS, 0), _LONGEST_BAR - _SHORTEST_BAR)
    classes = view.class_names(len(scene.class_results))
    confused_with = _Column("confused with, %", width, lambda result: _confusions(classes, result, width - 2))
    chosen.insert(len(chosen) - (trend in chosen), confused_with)
    return chosen


def _head(names: int, bar: int, columns: list[_Column]) -> Row:
    cells = "".join(_placed(column.title, column) for column in columns)
    return [(f"{fmt.fit(_CLASS, names)} {fmt.fit('accuracy (recall)', bar + _RECALL - 1)}{cells}", "dim")]


def _row(scene: DisplayState, result: ClassResult, names: int, bar: int, columns: list[_Column]) -> Row:
    accuracy = recall_cells(scene, result, bar)
    used = sum(cell_len(text) for text, _ in accuracy)
    row: Row = [name_cell(result, names), *accuracy, (" " * max(bar + _RECALL - used, 0), "text")]
    row += [(_placed(column.cell(result), column), "dim" if column.title == "images" else "text") for column in columns]
    return row


def _placed(text: str, column: _Column) -> str:
    """Align numbers to the right of their column, words and curves to its left."""
    if column.title in ("confused with, %", "trend"):
        return "  " + fmt.fit(text, column.width - 2)
    return f"{text:>{column.width}}"


def _interval(result: ClassResult) -> str:
    bounds = result.score.interval
    return "" if bounds is None else f"{fmt.percent(bounds[0])}-{fmt.percent(bounds[1])}"


def _confusions(classes: list[str], result: ClassResult, room: int) -> str:
    """The confused classes with their shares, as many as fit."""
    text = ""
    for other, count in result.score.confusions:
        longer = f"{text}{', ' if text else ''}{fmt.printable(classes[other])} {100 * count / result.score.images:.1f}"
        if text and cell_len(longer) > room:
            break
        text = longer
    return text
