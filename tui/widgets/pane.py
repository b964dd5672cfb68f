"""The base of all panes: rows of styled text, of which only the changed cells are sent to the terminal."""

from __future__ import annotations

from functools import lru_cache
from itertools import repeat
from typing import ClassVar, Protocol, cast

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.events import Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.drawing.canvas import Row
from tui.drawing.format import fit, printable
from tui.drawing.glyphs import Glyphs
from tui.drawing.themes import pixel_style
from tui.state.display_state import DisplayState
from tui.state.pages import NEXT_PAGE, OVERVIEW, PAGE_BY_NAME, PAGES, hint

_NARROW = frozenset(
    char
    for char in map(chr, (*range(0x20, 0x7F), *range(0x2500, 0x2600), *range(0x2800, 0x2900)))
    if cell_len(char) == 1
)
"""Characters of exactly one cell: ASCII, box drawing, blocks, geometric shapes, braille. Most of the screen consists of them."""


class PaneApp(Protocol):
    """Interface of the application that panes use."""

    palette: dict[str, Style]  # styles by the words of rows (`tui.drawing.themes.STYLES`)

    @property
    def picture_protocol(self) -> str:
        """Protocol for drawing pictures, one of `tui.drawing.pixel_pictures.protocol_for`."""


class Pane(Widget, can_focus=True):
    """Draws rows, and refreshes only the cells that changed: a whole widget would send some forty times their bytes."""

    ALLOW_SELECT = False
    follows_cursor: ClassVar[bool] = False  # whether the pane shows steps, or values at the cursor
    follows_clock: ClassVar[bool] = False  # whether the drawing depends on the time of day, and not on the run alone
    page: ClassVar[str] = ""  # the page that shows the pane alone; its key is shown before the title

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._rows: list[Row] = []
        self._strips: list[Strip] = []
        self._scene: DisplayState | None = None

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        """Rows of `width` cells; fewer than `height` are filled up, more are cut."""
        raise NotImplementedError

    def paint(self, scene: DisplayState) -> None:
        self._scene = scene
        width, height = self.size
        if not width or not height:
            return
        rows = [exact(row, width) for row in self.rows_for(scene, width, height)[:height]]
        rows += [[(" " * width, "text")]] * (height - len(rows))
        before, self._rows = self._rows, rows
        if len(before) != len(rows) or len(self._strips) != len(rows):
            self._strips = [self._strip(row) for row in rows]
            self.refresh()
            return
        changed = []
        for y, (old, new) in enumerate(zip(before, rows, strict=True)):
            if old != new:
                self._strips[y] = self._strip(new)
                start, end = _changed_cells(old, new, width)
                if start < end:
                    changed.append(Region(start, y, end - start, 1))
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        if y < len(self._strips):
            return self._strips[y]
        return Strip([Segment(" " * self.size.width, self._palette()["text"])], self.size.width)

    def recolour(self) -> None:
        self._rows = []
        if self._scene is not None:
            self.paint(self._scene)
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        self._rows = []
        if self._scene is not None:
            self.paint(self._scene)

    def watch_has_focus(self, _focused: bool) -> None:
        """Redraw the border, which shows the focus."""
        super().watch_has_focus(_focused)
        if self._scene is not None:
            self.paint(self._scene)

    def frame(
        self, glyphs: Glyphs, title: str, right: Row, body: list[Row], width: int, height: int, bottom: str = ""
    ) -> list[Row]:
        """Put a border with a title and figures around rows of `width - 4` cells; `width` and `height` are the pane's."""
        edge = "accent" if self.has_focus else "border"
        key = f"{PAGE_BY_NAME[self.page].key} " if self.page else ""
        room = width - 6 - len(key)
        right = _whole_figures(right, max(room - min(cell_len(title), 14), 0))
        right_width = sum(cell_len(text) for text, _ in right)
        title = fit(title, max(min(cell_len(title), room - right_width), 0)).rstrip()
        fill = max(room + 2 - cell_len(title) - (right_width + 2 if right else 0), 0)
        top = [(glyphs.corners[0] + " ", edge), (key, "key"), (title, "title"), (" " + glyphs.horizontal * fill, edge)]
        top += [(" ", edge), *right, (" ", edge)] if right else []
        top.append((glyphs.corners[1], edge))
        rows: list[Row] = [top]
        for index in range(height - 2):
            inner = body[index] if index < len(body) else []
            rows.append([(glyphs.vertical + " ", edge), *exact(inner, width - 4), (" " + glyphs.vertical, edge)])
        label = self._bottom_label(bottom, width - 6)
        before, after = (f"{glyphs.horizontal} ", " ") if label else ("", "")
        rest = glyphs.horizontal * max(width - 2 - cell_len(before + label + after), 0)
        rows.append([(glyphs.corners[2] + before, edge), (label, "dim"), (after + rest + glyphs.corners[3], edge)])
        return rows

    def notice(
        self, scene: DisplayState, title: str, text: str, width: int, height: int, bottom: str = ""
    ) -> list[Row]:
        """A frame around a text alone, while there is nothing else to show."""
        return self.frame(scene.glyphs, title, [], [[(text, "dim")]], width, height, bottom)

    def _bottom_label(self, text: str, room: int) -> str:
        """Text of the lower border: `text`, cut between its parts, and on a page the keys of other pages."""
        if not self.has_class("zoomed"):
            return _parts_that_fit(text, room)
        pages = "  ".join(hint(page.name) for page in PAGES if page.name != self.page)
        if cell_len(pages) > room - (cell_len(text) + 2 if text else 0):
            pages = f"{hint(OVERVIEW.name)}  {NEXT_PAGE}"
        text = _parts_that_fit(text, room - cell_len(pages) - 2)
        return fit(f"{text}  {pages}" if text else pages, room).rstrip()

    def _palette(self) -> dict[str, Style]:
        return cast(PaneApp, self.app).palette

    def _strip(self, row: Row) -> Strip:
        # Every segment has a style: under NO_COLOR Textual's filter fails on one that has none.
        palette = self._palette()
        styles = ((text, palette.get(name) or pixel_style(name)) for text, name in row if text)
        # The text of a row may come from disk, and Textual passes control characters on.
        return Strip([Segment(printable(text), style) for text, style in styles])


def _parts_that_fit(text: str, room: int) -> str:
    """As many parts of a text, separated by two blanks, as fit; an ellipsis stands for the rest."""
    if cell_len(text) <= room:
        return text
    while "  " in text and cell_len(text) > room - 3:
        text = text.rpartition("  ")[0]
    return f"{text}  …" if cell_len(text) <= room - 3 else fit(text, room).rstrip()


@lru_cache(4096)
def wrapped(text: str, width: int) -> tuple[str, ...]:
    """Wrap a text to lines of at most `width` cells, between words; a word longer than a line is cut."""
    return tuple(line.plain for line in Content(printable(text)).wrap(max(width, 1))) or ("",)


def _cut(row: Row, width: int) -> Row:
    """As much of a row as fits; the last run may be cut."""
    kept: Row = []
    for text, style in row:
        if cell_len(text) > width:
            return [*kept, (fit(text, width), style)] if width > 1 else kept
        kept.append((text, style))
        width -= cell_len(text)
    return kept


def _whole_figures(row: Row, width: int) -> Row:
    """As many of a row's figures as fit; a label is dropped together with its figure."""
    if sum(cell_len(text) for text, _ in row) <= width:
        return row
    kept = [run for end, run in enumerate(row) if sum(cell_len(text) for text, _ in row[: end + 1]) <= width]
    while kept and kept[-1][1] == "dim":
        kept.pop()
    return kept


def exact(row: Row, width: int) -> Row:
    """A row padded or cut to exactly `width` cells."""
    used = sum(cell_len(text) for text, _ in row)
    if used < width:
        return [*row, (" " * (width - used), "text")]
    return _cut(row, width) if used > width else row


def _cells(row: Row) -> list[tuple[str, str]]:
    """A row cell by cell; a wide character's second cell is empty."""
    cells: list[tuple[str, str]] = []
    for text, style in row:
        if _NARROW.issuperset(text):
            cells += zip(text, repeat(style))
            continue
        for char in text:
            width = cell_len(char)
            if width:
                cells.append((char, style))
                cells += [("", style)] * (width - 1)
            elif cells:
                cells[-1] = (cells[-1][0] + char, style)
    return cells


def _changed_cells(old: Row, new: Row, width: int) -> tuple[int, int]:
    """First changed cell, and the one after the last; equal if two rows only split the same cells differently."""
    before, after = _cells(old), _cells(new)
    if len(before) != len(after):
        return 0, width
    different = [x for x, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if not different:
        return 0, 0
    start, end = different[0], different[-1] + 1
    # Never start or end inside a wide character.
    while start > 0 and not after[start][0]:
        start -= 1
    while end < len(after) and not after[end][0]:
        end += 1
    return start, end
