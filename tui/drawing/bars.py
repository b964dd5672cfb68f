"""Horizontal bars with eighths of a cell. Pure."""

from __future__ import annotations

from tui.drawing.canvas import Row
from tui.drawing.glyphs import Glyphs


def bar(fraction: float, width: int, glyphs: Glyphs, style: str) -> Row:
    """Draw a bar of `width` cells; the filled share is clamped to 0 to 1, and the rest of the bar is dim."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * (8 if glyphs.partial else 1))
    whole, part = divmod(eighths, 8) if glyphs.partial else (eighths, 0)
    filled = glyphs.bar * whole + (glyphs.partial[part - 1] if part else "")
    return [(filled, style), (glyphs.bar_rest * (width - len(filled)), "faint")]
