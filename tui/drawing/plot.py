"""Curves on a canvas: axes, lines that keep every spike, points, and marks for non-finite values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tui.drawing.canvas import DOT_BITS, Canvas
from tui.drawing.glyphs import Glyphs
from tui.drawing.pyramid import Floats, Pyramid, column_edges
from tui.drawing.step_axis import nice_step

_WEIGHTS = np.array(DOT_BITS, dtype=np.uint8)
GUTTER = 6  # cells to the left of the plot: a label of five and the axis


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The part of the data that the plot shows; on a `log` scale `low` is above 0."""

    left: float
    right: float
    low: float
    high: float
    log: bool = False

    def heights_of(self, values: Floats) -> Floats:
        """Relative heights, 0 at the bottom and 1 at the top; NaN stays NaN."""
        if self.log:
            return np.log(np.maximum(values, self.low) / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)

    def across(self, position: float) -> float:
        """Relative position, 0 at the left and 1 at the right."""
        return (position - self.left) / (self.right - self.left)


@dataclass(frozen=True, kw_only=True)
class Area:
    """The region of the canvas that the plot is drawn in, in cells, from the canvas's top."""

    x: int
    width: int
    height: int

    def rows_of(self, frame: Frame, values: Floats) -> Floats:
        """The dot rows of values, clamped to the area; 0 is the top, NaN stays NaN."""
        dots = 4 * self.height
        return np.clip(np.rint((1.0 - frame.heights_of(values)) * (dots - 1)), 0, dots - 1)

    def column_of(self, frame: Frame, position: float) -> int:
        """The canvas column of a position, clamped to the area."""
        return self.x + min(max(int(frame.across(position) * self.width), 0), self.width - 1)


def draw_line(canvas: Canvas, area: Area, frame: Frame, pyramid: Pyramid, style: str, *, thin: bool = False) -> None:
    """Draw a stroke from lowest to highest in each dot column; if `thin`, only the newest value, for a series without spikes."""
    if area.width <= 0 or area.height <= 0:
        return
    lows, highs = (pyramid.last if thin else pyramid.columns)(column_edges(frame.left, frame.right, 2 * area.width))
    filled = np.flatnonzero(~np.isnan(lows))
    if not len(filled):
        return
    tops, bottoms = _joined(filled, area.rows_of(frame, highs[filled]), area.rows_of(frame, lows[filled]))
    rows_R1 = np.arange(4 * area.height)[:, None]
    dots_RC = np.zeros((4 * area.height, 2 * area.width), dtype=bool)
    dots_RC[:, filled[0] : filled[-1] + 1] = (rows_R1 >= tops) & (rows_R1 <= bottoms)
    patterns_YX = (
        dots_RC.reshape(area.height, 4, area.width, 2).transpose(0, 2, 1, 3).reshape(-1, area.width, 8) @ _WEIGHTS
    )
    ys, xs = np.nonzero(patterns_YX)
    for y, x, pattern in zip(ys.tolist(), (xs + area.x).tolist(), patterns_YX[ys, xs].tolist(), strict=True):
        canvas.dots(x, y, pattern, style)


def _joined(filled: NDArray[np.intp], tops: Floats, bottoms: Floats) -> tuple[Floats, Floats]:
    """Upper and lower rows of the strokes of all columns, from the first to the last of those `filled` (rising indices).

    They are slanted over empty columns, and each is extended to its neighbours; rows count from the top.
    """
    columns = np.arange(filled[0], filled[-1] + 1)
    slanted = np.rint(np.interp(columns, filled, (tops + bottoms) / 2))
    top, bottom = slanted.copy(), slanted.copy()
    top[filled - filled[0]], bottom[filled - filled[0]] = tops, bottoms
    # Where one stroke ends above the next one's beginning, each takes half of the rows between them.
    down, up = top[1:] - bottom[:-1], top[:-1] - bottom[1:]
    upper, lower = top.copy(), bottom.copy()
    lower[:-1] = np.where(down > 1, bottom[:-1] + down // 2, lower[:-1])
    upper[1:] = np.where(down > 1, bottom[:-1] + down // 2 + 1, upper[1:])
    upper[:-1] = np.where(up > 1, np.minimum(upper[:-1], top[:-1] - up // 2), upper[:-1])
    lower[1:] = np.where(up > 1, np.maximum(lower[1:], top[:-1] - up // 2 - 1), lower[1:])
    return upper, lower


def draw_marks(canvas: Canvas, area: Area, frame: Frame, pyramid: Pyramid, glyphs: Glyphs) -> None:
    """Mark non-finite values at the top of their columns."""
    for position in pyramid.not_finite[-500:]:
        if frame.left <= position <= frame.right:
            canvas.put(area.column_of(frame, position), 0, glyphs.not_a_number, "bad")


def draw_point(canvas: Canvas, area: Area, frame: Frame, position: float, value: float, char: str, style: str) -> None:
    """Draw a mark; at the edge if above or below the frame's values, not at all for a non-finite value."""
    if math.isfinite(value) and frame.left <= position <= frame.right:
        row = int(area.rows_of(frame, np.array([value]))[0]) // 4
        canvas.put(area.column_of(frame, position), row, char, style)


def draw_cursor(canvas: Canvas, area: Area, frame: Frame, glyphs: Glyphs, position: float | None) -> None:
    """Draw a vertical line over the whole height, behind what is already drawn; None draws nothing."""
    if position is not None and frame.left <= position <= frame.right:
        column = area.column_of(frame, position)
        for row in range(area.height):
            canvas.put_behind(column, row, glyphs.vertical, "accent")


def draw_axes(
    canvas: Canvas, area: Area, frame: Frame, glyphs: Glyphs, *, x_labels: list[tuple[float, str]], percent: bool = False
) -> None:  # fmt: skip
    """Draw the value axis to the left and, when the canvas has two more rows, the position axis below."""
    ticks = tick_values(frame, max(2, area.height // 3))
    rows = {int(row) // 4: value for row, value in zip(area.rows_of(frame, np.array(ticks)), ticks, strict=True)}
    for row in range(area.height):
        label = tick_label(rows[row], percent=percent) if row in rows else ""
        canvas.put(0, row, f"{label:>{area.x - 2}} " if area.x > 2 else "", "dim")
        canvas.put(area.x - 1, row, glyphs.axis if row in rows else glyphs.vertical, "border")
    if canvas.height >= area.height + 2:
        _draw_position_axis(canvas, area, frame, glyphs, x_labels)


def tick_values(frame: Frame, wanted: int) -> list[float]:
    """Round values for the axis, at most `wanted` + 1 of them."""
    if frame.log:
        decades = range(math.ceil(math.log10(frame.low) - 1e-9), math.floor(math.log10(frame.high) + 1e-9) + 1)
        return [10.0**power for power in decades] or [frame.low, frame.high]
    step = nice_step((frame.high - frame.low) / max(wanted, 1))
    indices = range(math.ceil(frame.low / step - 1e-9), math.floor(frame.high / step + 1e-9) + 1)
    return [index * step for index in indices]


def nice_range(low: float, high: float, *, steps: int = 3) -> tuple[float, float]:
    """Round bounds around two values."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        high = low + (abs(low) * 0.1 if abs(low) > 1e-3 else 1.0)
    step = nice_step((high - low) / steps)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def tick_label(value: float, *, percent: bool) -> str:
    """An axis label of at most five characters, for a value of at most three significant digits."""
    text = f"{100 * value if percent else value:.3g}"
    if percent or (len(text) <= 5 and "e" not in text):
        return text
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    if 0.001 <= value < 1 and len(text) == 6:
        return text.removeprefix("0")
    digits, _, exponent = f"{value:.1e}".partition("e")
    short = f"{digits.removesuffix('.0')}e{int(exponent)}"
    return short if len(short) <= 5 else f"{digits.replace('.', '')}e{int(exponent) - 1}"


def _draw_position_axis(
    canvas: Canvas, area: Area, frame: Frame, glyphs: Glyphs, labels: list[tuple[float, str]]
) -> None:
    row = area.height
    canvas.put(area.x - 1, row, glyphs.axis_corner + glyphs.horizontal * area.width, "border")
    free_from = 0
    for position, text in labels:
        column = min(area.x + round(frame.across(position) * area.width), area.x + area.width - 1)
        start = min(max(column - len(text) // 2, 0), canvas.width - len(text))
        if frame.left <= position <= frame.right and start >= free_from:
            canvas.put(column, row, glyphs.axis_tick, "border")
            canvas.put(start, row + 1, text, "dim")
            free_from = start + len(text) + 2
