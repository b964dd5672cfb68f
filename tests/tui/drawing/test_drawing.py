"""Pure functions of the screen: texts, decimation, curves, bars, rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from trainer.run.view.series import Series
from tui.drawing import format as fmt
from tui.drawing.canvas import DOT_BITS, Canvas, bar
from tui.drawing.glyphs import ASCII, UNICODE
from tui.drawing.plot import (
    GUTTER,
    Area,
    Frame,
    _joined,
    draw_axes,
    draw_line,
    draw_marks,
    nice_range,
    tick_label,
    tick_values,
)
from tui.drawing.pyramid import Pyramid
from tui.drawing.sparkline import sparkline
from tui.drawing.step_axis import nice_step
from tui.widgets.pane import _changed_cells, exact, wrapped


def series_of(values: list[float]) -> Series:
    series = Series()
    for x, y in enumerate(values):
        series.append(float(x), y)
    return series


def pyramid_of(values: list[float]) -> Pyramid:
    pyramid = Pyramid()
    pyramid.follow(series_of(values))
    return pyramid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt.number(0.41234), "0.412"), (fmt.number(12.3456), "12.35"), (fmt.number(12345.6), "12,346"), (fmt.number(None), "—"),
        (fmt.number(float("nan")), "NaN"), (fmt.rate(0.13333), "0.133"), (fmt.percent(0.83914), "83.9"),
        (fmt.duration(21), "0:21"), (fmt.duration(3725), "1:02:05"), (fmt.duration(90_000), "1d 01:00"),
        (fmt.age(0.13), "0.1 s"), (fmt.age(65), "65 s"), (fmt.age(185), "3:05"), (fmt.gib(2**30 * 11.4), "11.4"),
        (fmt.count(11_173_962), "11.2 M"), (fmt.per_second(81204.4), "81,204 img/s"),
    ],
)  # fmt: skip
def test_figures_are_short_and_have_units(text: str, expected: str) -> None:
    assert text == expected


def test_text_from_disk_cannot_move_the_cursor() -> None:
    assert fmt.printable("a\x1b[2Jb\u202ec\u200bd\n[red]e") == "a?[2Jb?c?d?[red]e"


@given(st.text(max_size=40), st.integers(0, 30))
def test_fit_is_exact_for_any_text(text: str, width: int) -> None:
    assert cell_len(fmt.fit(fmt.printable(text), width)) == width


@given(
    words=st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12)),
    width=st.integers(24, 80),
)
def test_long_texts_are_wrapped_between_words(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), width)
    assert all(cell_len(line) <= width for line in lines)
    assert " ".join(lines).split() == [fmt.printable(word) for word in words]


def test_a_word_longer_than_a_line_is_wrapped() -> None:
    assert wrapped("see " + "long" * 5, 8) == ("see", "longlong", "longlong", "long")


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=3000),
    st.integers(1, 60),
    st.integers(1, 7),
)
def test_columns_keep_the_extremes_of_their_points(values: list[float], columns: int, pieces: int) -> None:
    """The lowest and highest values are those of the raw points at every width, and however the series grew."""
    series, pyramid = Series(), Pyramid()
    for index, value in enumerate(values):
        series.append(float(index), value)
        if index % max(len(values) // pieces, 1) == 0:
            pyramid.follow(series)
    pyramid.follow(series)
    edges = np.linspace(0.0, float(len(values)), columns + 1)
    lows, highs = pyramid.columns(edges)
    finite = [v for v in values if math.isfinite(v)]
    if finite:
        assert np.nanmin(lows) == min(finite)
        assert np.nanmax(highs) == max(finite)
    assert len(pyramid.not_finite) == len(values) - len(finite)


@pytest.mark.parametrize("width", [40, 80, 137, 300])
@pytest.mark.parametrize("where", [3, 12_345, 99_999])
def test_a_single_spike_is_drawn_at_every_width(width: int, where: int) -> None:
    values = [1.0] * 100_000
    values[where] = 9.0
    canvas, frame = Canvas(width, 8), Frame(left=0.0, right=99_999.0, low=0.0, high=10.0)
    area = Area(x=GUTTER, width=width - GUTTER, height=8)
    draw_line(canvas, area, frame, pyramid_of(values), "train")
    top_row = canvas.rows()[0]
    column, seen = 0, []
    for text, style in top_row:
        seen += [column + i for i, char in enumerate(text) if style == "train" and char != " "]
        column += len(text)
    assert len(seen) == 1
    assert abs(seen[0] - area.column_of(frame, where)) <= 1


@given(st.dictionaries(st.integers(0, 40), st.tuples(st.integers(0, 31), st.integers(0, 31)), min_size=1))
def test_every_stroke_touches_its_neighbour(strokes: dict[int, tuple[int, int]]) -> None:
    filled = np.array(sorted(strokes))
    tops, bottoms = (np.array([float(pick(strokes[column])) for column in sorted(strokes)]) for pick in (min, max))
    upper, lower = _joined(filled, tops, bottoms)
    assert len(upper) == filled[-1] - filled[0] + 1
    assert (upper[1:] <= lower[:-1] + 1).all()
    assert (upper[:-1] <= lower[1:] + 1).all()
    # Never shorter than the data, never beyond both neighbours.
    assert (upper[filled - filled[0]] <= tops).all()
    assert (lower[filled - filled[0]] >= bottoms).all()
    assert upper.min() == tops.min()
    assert lower.max() == bottoms.max()


@pytest.mark.parametrize("height", [-1, 0, 1])
def test_a_plot_without_space_draws_nothing(height: int) -> None:
    canvas = Canvas(20, 1)
    area = Area(x=GUTTER, width=20 - GUTTER, height=height)
    draw_line(canvas, area, Frame(left=0.0, right=9.0, low=0.0, high=1.0), pyramid_of([0.5] * 10), "train")
    assert any(style == "train" for _, style in canvas.rows()[0]) is (height == 1)


def test_a_smoothed_curve_has_one_dot_per_column_at_its_newest_value() -> None:
    pyramid = pyramid_of([0.0, 8.0, 2.0, 3.0, math.nan, 5.0])
    lows, highs = pyramid.last(np.array([0.0, 3.0, 4.0, 5.0, 6.0]))
    assert lows.tolist()[:2] == [2.0, 3.0]
    assert math.isnan(lows[2])
    assert lows[3] == 5.0
    assert np.array_equal(lows, highs, equal_nan=True)


def test_a_cell_belongs_to_the_curve_drawn_last() -> None:
    canvas = Canvas(1, 1)
    canvas.dots(0, 0, sum(DOT_BITS[0::2]), "raw")
    canvas.dots(0, 0, DOT_BITS[1], "train")
    assert canvas.rows() == [[("\u2808", "train")]]


def test_a_pyramid_is_rebuilt_after_points_were_dropped() -> None:
    series = series_of([1.0] * 400 + [50.0] * 100)
    pyramid = Pyramid()
    pyramid.follow(series)
    series.drop_after(399)
    for x in range(400, 600):
        series.append(float(x), 2.0)
    pyramid.follow(series)
    assert pyramid.extent(0, 600) == (1.0, 2.0)


def test_non_finite_values_are_marked_and_do_not_affect_the_axis() -> None:
    pyramid = pyramid_of([1.0, math.nan, 2.0, math.inf])
    assert pyramid.extent(0, 3) == (1.0, 2.0)
    canvas, frame = Canvas(30, 4), Frame(left=0.0, right=3.0, low=0.0, high=2.0)
    draw_marks(canvas, Area(x=GUTTER, width=24, height=4), frame, pyramid, UNICODE)
    assert "".join(text for text, style in canvas.rows()[0] if style == "bad").count(UNICODE.not_a_number) == 2


@given(st.floats(-1e5, 1e5), st.floats(0, 1e5))
def test_nice_ranges_enclose_their_values(low: float, span: float) -> None:
    bottom, top = nice_range(low, low + span)
    tolerance = 1e-6 * max(abs(low), span, 1.0)
    assert bottom <= low + tolerance
    assert top >= low + span - tolerance
    assert top > bottom


def test_ticks_are_round() -> None:
    assert nice_step(0.7) == 1.0
    assert tick_values(Frame(left=0, right=1, low=0.0, high=2.5), 5) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert tick_values(Frame(left=0, right=1, low=0.01, high=10.0, log=True), 5) == pytest.approx(
        [0.01, 0.1, 1.0, 10.0]
    )
    assert [tick_label(v, percent=True) for v in (0.0, 0.05, 0.625, 0.9975, 1.0)] == ["0", "5", "62.5", "99.8", "100"]
    values = (0.0, 0.025, 0.205, 0.0125, 1.0, 2.5, 0.0001, 0.00025, 1500.0, 12_500.0, 250_000.0)
    labels = ["0", "0.025", "0.205", ".0125", "1", "2.5", "1e-4", "25e-5", "1500", "12500", "2.5e5"]
    assert [tick_label(v, percent=False) for v in values] == labels


def test_axes_fit_a_canvas_of_any_size() -> None:
    for width in range(10, 60, 7):
        for height in range(1, 12):
            canvas = Canvas(width, height)
            area = Area(x=GUTTER, width=width - GUTTER, height=max(height - 2, 1))
            draw_axes(
                canvas, area, Frame(left=0, right=10, low=0, high=1), UNICODE, x_labels=[(0, "epoch 0"), (10, "10")]
            )
            assert all(sum(len(text) for text, _ in row) == width for row in canvas.rows())


def test_ascii_glyphs_are_ascii() -> None:
    canvas = Canvas(20, 4, braille=ASCII.braille)
    draw_line(
        canvas,
        Area(x=0, width=20, height=4),
        Frame(left=0, right=9, low=0, high=9),
        pyramid_of(list(range(10))),
        "train",
    )
    text = "".join(text for row in canvas.rows() for text, _ in row)
    assert text.isascii()
    assert "*" in text
    assert all(str(value).isascii() for value in vars(ASCII).values())


def test_a_bar_has_a_resolution_of_eighths() -> None:
    assert bar(0.5, 4, UNICODE, "test") == [("██", "test"), ("░░", "faint")]
    assert bar(0.53125, 4, UNICODE, "test")[0][0] == "██▏"
    assert bar(7.0, 4, UNICODE, "test")[0][0] == "████"
    assert bar(0.5, 4, ASCII, "test") == [("##", "test"), ("..", "faint")]


def test_a_sparkline_has_its_width_and_its_shape() -> None:
    line = sparkline(pyramid_of([float(v) for v in range(64)]), 0.0, 63.0, 8, UNICODE)
    assert line == "▁▂▃▄▅▆▇█"
    assert sparkline(Pyramid(), 0.0, 1.0, 5, UNICODE) == "     "


def test_only_changed_cells_are_refreshed() -> None:
    old = [("step ", "dim"), ("12", "text"), (" of 20", "dim")]
    new = [("step ", "dim"), ("13", "text"), (" of 20", "dim")]
    assert _changed_cells(old, new, 13) == (6, 7)
    assert _changed_cells([("a漢b", "text")], [("a字b", "text")], 4) == (1, 3)


def test_a_row_is_cut_or_filled_to_its_width() -> None:
    assert exact([("ab", "x"), ("cd", "y")], 6) == [("ab", "x"), ("cd", "y"), ("  ", "text")]
    assert sum(cell_len(text) for text, _ in exact([("abc", "x"), ("漢字漢字", "y")], 6)) == 6
