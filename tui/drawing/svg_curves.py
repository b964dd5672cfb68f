"""Curves as SVG: minimum and maximum under each pixel, the running mean over them, evaluations as points. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from trainer.run.view.series import Series, Smoothed
from tui.drawing.plot import Frame, nice_range, tick_label, tick_values
from tui.drawing.pyramid import Floats, Pyramid, column_edges

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 28
_COLUMNS = WIDTH - _LEFT - _RIGHT


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Content of one plot: values of every step, their running mean, evaluations as points; `percent` if they are shares."""

    title: str
    raw: Series
    labels: Sequence[tuple[float, str]]
    total: float
    smooth: Smoothed | None = None
    points: Sequence[tuple[float, float]] = ()
    percent: bool = False


def svg(curve: Curve) -> str:
    """The plot as an SVG element; colours are classes of the page's style sheet."""
    pyramid = Pyramid.of(curve.raw)
    frame = _frame(curve, pyramid)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve.title)}">', _axes(curve, frame)]
    edges = column_edges(frame.left, frame.right, _COLUMNS)
    parts.append(_band(pyramid, edges, frame, style="train" if curve.smooth is None else "raw"))
    if curve.smooth is not None:
        parts.append(_line(Pyramid.of(curve.smooth), edges, frame))
    for step, value in curve.points:
        x, y, text = _x(frame, step), _y(frame, value), f"{100 * value:.2f} %" if curve.percent else f"{value:.4f}"
        if math.isfinite(value) and value > frame.high:
            arrow = f"M{x - 4:.1f} {_TOP + 7}L{x:.1f} {_TOP}L{x + 4:.1f} {_TOP + 7}Z"
            parts.append(f'<path class="test" d="{arrow}"><title>{text}, above the axis</title></path>')
        elif math.isfinite(value):
            parts.append(f'<circle class="test" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{text}</title></circle>')
    return "".join([*parts, "</svg>"])


def _frame(curve: Curve, pyramid: Pyramid) -> Frame:
    low, high = pyramid.extent(0.0, curve.total) or (0.0, 1.0)
    measured = [value for _, value in curve.points if math.isfinite(value)]
    # A first evaluation far above all others would flatten the curve: an arrow replaces it. The newest is always visible.
    ceiling = 1.5 * max([high, *measured[-1:]])
    high = max([high, *(value for value in measured if value <= ceiling)])
    if curve.percent:
        return Frame(left=0.0, right=curve.total, low=0.0, high=1.0)
    low, high = nice_range(min(low, 0.0), high)
    return Frame(left=0.0, right=curve.total, low=low, high=high)


def _axes(curve: Curve, frame: Frame) -> str:
    parts = []
    for value in tick_values(frame, 4):
        y, text = _y(frame, value), tick_label(value, percent=curve.percent) + (" %" if curve.percent else "")
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for position, text in curve.labels:
        anchor = "start" if position == frame.left else "middle"
        x = _x(frame, position)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(text)}</text>')
    return "".join(parts)


def _band(pyramid: Pyramid, edges: Floats, frame: Frame, *, style: str) -> str:
    """One vertical stroke per pixel, from the lowest to the highest value there, joined to its neighbours."""
    lows, highs = pyramid.columns(edges)
    strokes, before = [], None
    for column in np.flatnonzero(~np.isnan(lows)).tolist():
        x, top, bottom = _LEFT + column + 0.5, _y(frame, highs[column]), _y(frame, lows[column])
        if before is not None:
            strokes.append(f"L{x:.1f} {(top + bottom) / 2:.1f}")
        strokes.append(f"{'M' if before is None else 'L'}{x:.1f} {top:.1f}L{x:.1f} {bottom:.1f}")
        before = column
    return f'<path class="{style}" d="{"".join(strokes)}"/>' if strokes else ""


def _line(pyramid: Pyramid, edges: Floats, frame: Frame) -> str:
    values, _ = pyramid.last(edges)
    points = [
        f"{_LEFT + column + 0.5:.1f},{_y(frame, values[column]):.1f}"
        for column in np.flatnonzero(~np.isnan(values)).tolist()
    ]
    return f'<polyline class="train" points="{" ".join(points)}"/>' if points else ""


def _x(frame: Frame, position: float) -> float:
    return _LEFT + frame.across(position) * _COLUMNS


def _y(frame: Frame, value: float) -> float:
    share = (min(max(float(value), frame.low), frame.high) - frame.low) / (frame.high - frame.low)
    return _TOP + (1.0 - share) * (HEIGHT - _TOP - _BOTTOM)
