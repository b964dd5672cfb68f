"""Distribution of values over a run: one histogram per column, time from left to right, values from bottom to top. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.drawing.glyphs import Glyphs

_WIDEST = 4  # maximum width of a column in cells: the first few histograms would look like a wall
_LABEL = 10


@dataclass(frozen=True)
class Histogram:
    """Counts in equally wide bins from minus `reach` to plus `reach`."""

    reach: float
    counts: Sequence[int]


def history_rows(
    histograms: Sequence[Histogram | None], here: int, title: str, style: str, width: int, height: int, glyphs: Glyphs
) -> list[Row]:
    """Draw histograms in order of time side by side, on one axis of values; None leaves a column empty.

    Those that do not fit are thinned out evenly. `here` is the index of the one that is marked in the last of `height` rows.
    """
    rows, room = height - 2, width - _LABEL
    reach = max((one.reach for one in histograms if one is not None), default=0.0)
    if rows < 1 or room < 1 or not reach:
        return [[(fmt.fit(title, width), "dim")]]
    # As many as there is room for, including the first and the last.
    places = [round(place) for place in np.linspace(0, len(histograms) - 1, min(len(histograms), room)).tolist()]
    wide = min(max(room // len(places), 1), _WIDEST)
    columns = [_shades(histograms[place], rows, reach, glyphs) for place in places]
    labels = {0: f"{reach:.2g}", rows // 2: "0", rows - 1: f"-{reach:.2g}"}
    picture: list[Row] = [
        [
            (f"{labels.get(row, ''):>{_LABEL - 2}} {glyphs.vertical}", "dim"),
            ("".join(column[row] * wide for column in columns).ljust(room), style),
        ]
        for row in range(rows)
    ]
    nearest = min(range(len(places)), key=lambda column: abs(places[column] - here))
    below: Row = [(" " * (_LABEL + nearest * wide), "text"), (glyphs.mark, "accent")]
    return [[(fmt.fit(title, width), "dim")], *picture, below]


def _shades(histogram: Histogram | None, rows: int, reach: float, glyphs: Glyphs) -> str:
    """A column from top to bottom; the fullest row has the darkest shade, and a row with few values still a light one."""
    if histogram is None or not histogram.reach:
        return " " * rows
    bins = np.linspace(-histogram.reach, histogram.reach, len(histogram.counts) + 1)
    below = np.concatenate([[0.0], np.cumsum(histogram.counts)])
    shares = np.diff(np.interp(np.linspace(-reach, reach, rows + 1), bins, below))[::-1]
    darkest = len(glyphs.shades) - 1
    levels = np.ceil(np.sqrt(shares / max(shares.max(), 1e-12)) * darkest - 1e-9)
    return "".join(glyphs.shades[int(level)] for level in levels.tolist())
