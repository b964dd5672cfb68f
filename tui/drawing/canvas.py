"""A grid of styled cells, with braille dots at twice the width and four times the height, and bars. Pure.

A style is a word such as `train` or `dim`; the pane that draws the canvas maps it to a colour.
"""

from __future__ import annotations

from itertools import groupby

from tui.drawing.glyphs import Glyphs

Row = list[tuple[str, str]]  # a line of the screen as (text, style) runs
DOT_BITS = (0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80)  # bit of each dot in a braille cell's code, row by row

_BRAILLE = [chr(0x2800 + dots) for dots in range(256)]
_STARS = ["*"] * 256


class Canvas:
    """Cells of one character and one style each."""

    def __init__(self, width: int, height: int, *, braille: bool = True) -> None:
        self.width = width
        self.height = height
        self._glyphs = _BRAILLE if braille else _STARS
        self._chars = [[" "] * width for _ in range(height)]
        self._styles = [["text"] * width for _ in range(height)]
        self._dots = [[0] * width for _ in range(height)]

    def put(self, x: int, y: int, text: str, style: str) -> None:
        """Write characters of one cell each from a position on; what falls outside is dropped."""
        if 0 <= y < self.height:
            for offset, char in enumerate(text):
                if 0 <= x + offset < self.width:
                    self._chars[y][x + offset] = char
                    self._styles[y][x + offset] = style
                    self._dots[y][x + offset] = 0

    def put_behind(self, x: int, y: int, char: str, style: str) -> None:
        """Write a character where the canvas is still empty."""
        if self._chars[y][x] == " " and not self._dots[y][x]:
            self.put(x, y, char, style)

    def dots(self, x: int, y: int, pattern: int, style: str) -> None:
        """Add dots (a sum of `DOT_BITS`) to a cell; it has one colour, so dots of another style replace the earlier ones."""
        if self._styles[y][x] != style:
            self._styles[y][x] = style
            self._dots[y][x] = 0
        self._dots[y][x] |= pattern

    def rows(self) -> list[Row]:
        """The lines, with neighbours of one style joined into one run."""
        return [self._row(y) for y in range(self.height)]

    def _row(self, y: int) -> Row:
        glyphs, styles = self._glyphs, self._styles[y]
        pairs = zip(self._chars[y], self._dots[y], strict=True)
        text = "".join([glyphs[dots] if dots else char for char, dots in pairs])
        row: Row = []
        start = 0
        for style, run in groupby(styles):
            end = start + len(list(run))
            row.append((text[start:end], style))
            start = end
        return row


def bar(fraction: float, width: int, glyphs: Glyphs, style: str) -> Row:
    """Draw a bar of `width` cells; the filled share is clamped to 0 to 1, and the rest of the bar is dim."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * (8 if glyphs.partial else 1))
    whole, part = divmod(eighths, 8) if glyphs.partial else (eighths, 0)
    filled = glyphs.bar * whole + (glyphs.partial[part - 1] if part else "")
    return [(filled, style), (glyphs.bar_rest * (width - len(filled)), "faint")]
