"""Confusion of classes: a matrix of counts, shaded by the share of the class, and the worst pairs in words."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.state.class_results import ClassResult, Pair, worst_pairs
from tui.state.display_state import DisplayState
from tui.widgets.class_accuracy import waiting_text
from tui.widgets.scroll_pane import TablePane

_SHADES = ((0.10, "heat4"), (0.05, "heat3"), (0.02, "heat2"), (0.0, "heat1"))  # minimum share of a class, style
_LEAST_CELL = 4
_LIST_WIDTH = 34  # minimum columns of the list beside the matrix
_LIST_HEIGHT = 4  # minimum rows of the list below it


class ConfusionPane(TablePane):
    """The matrix, limited to the most confused classes if it does not fit, and the list of pairs."""

    page = "confusion"

    _sorted: tuple[list[ClassResult], list[ClassResult], list[Pair]] = ([], [], [])  # as found, by class, pairs

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        last = scene.view.last_evaluation
        title = f"Confusion on {scene.view.selection_split}"
        results, pairs = self._by_label_and_pairs(scene)
        if last is None or not results:
            return self.notice(scene, title, waiting_text(scene), width, height)
        if not last.confusions:
            text = "this log predates confusions; the next evaluation adds them: e"
            return self.notice(scene, title, text, width, height)
        mistakes = sum(last.counts) - sum(last.correct)
        body, chosen = self._body(results, pairs, width - 4, height - 2)
        which = "" if chosen == len(results) else f"  {chosen} of {len(results):,} classes"
        when = f"  epoch {round(last.epoch, 2):g}"
        right: Row = [(f"{mistakes:,}", "test"), (f" mistakes in {sum(last.counts):,}{which}{when}", "dim")]
        return self.frame(scene.glyphs, title, right, body, width, height, bottom="row: true class, column: answer")

    def _body(self, results: list[ClassResult], pairs: list[Pair], width: int, height: int) -> tuple[list[Row], int]:
        """Matrix and list, and the number of classes in the matrix."""
        largest = max(
            max([result.score.correct, *(count for _, count in result.score.confusions[:1])]) for result in results
        )
        cell = max(_LEAST_CELL, len(str(largest)) + 1)
        heads, titles = _names(results, cell - 1)
        names = min(max(cell_len(title) for title in titles.values()), max(width // 6, 6))
        room = max(min((width - names) // cell, height - 1), 1)
        shown = results if len(results) <= room else _most_confused(results, room)
        matrix = _matrix(shown, heads, titles, names, cell)
        used = names + cell * len(shown)
        if width - used - 3 >= _LIST_WIDTH:
            beside = self._listed(pairs, width - used - 3, height)
            empty: Row = [(" " * used, "text")]
            padded = matrix + [empty] * (height - len(matrix))
            return [[*row, ("   ", "text"), *pair] for row, pair in zip(padded, beside, strict=False)], len(shown)
        below = height - len(matrix) - 1
        return [*matrix, *([[], *self._listed(pairs, width, below)] if below >= _LIST_HEIGHT else [])], len(shown)

    def _by_label_and_pairs(self, scene: DisplayState) -> tuple[list[ClassResult], list[Pair]]:
        """All classes in their order, and all pairs, worst first; recomputed only after an evaluation."""
        found = scene.class_results
        if found is not self._sorted[0]:
            self._sorted = found, sorted(found, key=lambda result: result.label), worst_pairs(found)
        return self._sorted[1:]

    def _listed(self, pairs: list[Pair], width: int, height: int) -> list[Row]:
        """The visible pairs, padded to `height` rows."""
        shown, place = self.in_sight(pairs, height - 1)
        title = fmt.fit(f"pairs {place.strip()}" if place else "worst pairs", width - 15)
        rows: list[Row] = [[(f"{title}{'images':>7}{'share':>8}", "dim")]]
        for share, count, true, answer in shown:
            words = fmt.fit(f"{true} predicted as {answer}", width - 15)
            rows.append([(words, "text"), (f"{count:>7,} ", "text"), (f"{100 * share:>5.1f} %", _shade(share))])
        return rows + [[] for _ in range(height - len(rows))]


def _most_confused(results: list[ClassResult], room: int) -> list[ClassResult]:
    weight = {result.label: 0.0 for result in results}
    for result in results:
        for other, count in result.score.confusions:
            share = count / result.score.images
            weight[result.label] = max(weight[result.label], share)
            weight[other] = max(weight[other], share)
    chosen = sorted(weight, key=lambda label: -weight[label])[:room]
    return [result for result in results if result.label in chosen]


def _names(results: list[ClassResult], width: int) -> tuple[dict[int, str], dict[int, str]]:
    """Headings of the columns and of the rows by class: names with the same beginning are distinguished by numbers."""
    heads = {result.label: _short(result.name, width) for result in results}
    if len(set(heads.values())) == len(heads):
        return heads, {result.label: result.name for result in results}
    numbered = {result.label: f"{result.label:>{width}}" for result in results}
    return numbered, {result.label: f"{result.label} {result.name}" for result in results}


def _matrix(
    shown: list[ClassResult], heads: dict[int, str], titles: dict[int, str], names: int, cell: int
) -> list[Row]:
    rows: list[Row] = [[(" " * names, "text"), ("".join(f" {heads[result.label]}" for result in shown), "dim")]]
    for result in shown:
        images = result.score.images
        row: Row = [(fmt.fit(titles[result.label], names), "text")]
        own = f"{result.score.correct:>{cell}}", "own"
        row += [own if other is result else _cell(result.predicted_as(other.label), images, cell) for other in shown]
        rows.append(row)
    return rows


def _cell(count: int | None, images: int, width: int) -> tuple[str, str]:
    """A dot for zero, a question mark for an unknown count: some images, but not among the most frequent."""
    if not count:
        return f"{'?' if count is None else '.':>{width}}", "faint"
    return f"{count:>{width}}", _shade(count / max(images, 1))


def _shade(share: float) -> str:
    return next(style for least, style in _SHADES if share >= least)


def _short(name: str, width: int) -> str:
    """The first letters of a name, padded to `width` cells."""
    short = set_cell_size(name, width).rstrip()
    return " " * (width - cell_len(short)) + short
