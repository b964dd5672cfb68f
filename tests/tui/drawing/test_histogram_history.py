"""Histograms of a layer over time, one column per histogram."""

from __future__ import annotations

import pytest

from tui.drawing.glyphs import ASCII, UNICODE
from tui.drawing.histogram_history import Histogram, history_rows

NARROW = Histogram(0.1, [0, 0, 50, 50, 0, 0])
WIDE = Histogram(1.0, [50, 0, 0, 0, 0, 50])


def drawn(histograms: list[Histogram | None], width: int = 40, height: int = 9, here: int = 0) -> list[str]:
    rows = history_rows(histograms, here, "weights", "test", width, height, UNICODE)
    return ["".join(text for text, _ in row) for row in rows]


def test_all_columns_share_one_axis() -> None:
    title, *picture, below = drawn([NARROW, WIDE])
    assert title.startswith("weights")
    columns = [row[10:18] for row in picture]
    assert len(picture) == 7
    assert picture[0].startswith("       1 │")
    assert picture[3].startswith("       0 │")
    assert picture[6].startswith("      -1 │")
    assert [column[:4].strip() for column in columns] == ["", "", "", "████", "", "", ""], "a tenth as wide"
    assert [bool(column[4:].strip()) for column in columns] == [True, True, False, False, False, True, True]
    assert below == " " * 10 + "▴"


def test_few_values_are_visible_and_none_are_blank() -> None:
    _, *picture, _ = drawn([Histogram(1.0, [1, 0, 10_000, 0, 0])], height=7)
    assert [row[10] for row in picture] == [" ", " ", "█", " ", "░"]


@pytest.mark.parametrize("reach", [1e-9, 1.2e-5, 1.2e-4, 0.034, 5.0, 123456.0])
def test_labels_fit_for_any_number(reach: float) -> None:
    _, *picture, _ = drawn([Histogram(reach, [1, 2, 1])])
    assert {line.index("│") for line in picture} == {9}
    assert {len(line) for line in picture} == {40}


@pytest.mark.parametrize("count", [1, 2, 7, 30, 31, 200])
@pytest.mark.parametrize("width", [12, 20, 41])
def test_any_number_of_columns_fits_with_the_mark_below_its_column(count: int, width: int) -> None:
    for here in (0, count - 1):
        title, *picture, below = drawn([NARROW] * count, width=width, here=here)
        assert {len(title), *(len(row) for row in picture)} == {width}
        assert len(below) <= width
        drawn_columns = [column for column in range(10, width) if picture[3][column] != " "]
        assert drawn_columns[0] <= below.index("▴") <= drawn_columns[-1]
        assert (below.index("▴") == 10) is (here == 0)


def test_a_frozen_layer_has_gaps_and_an_empty_one_only_a_title() -> None:
    _, *picture, _ = drawn([None, NARROW])
    assert picture[3][10:18] == "    ████"
    assert len(drawn([None, None])) == 1


def test_ascii_shades_are_ascii() -> None:
    rows = history_rows([WIDE], 0, "weights", "test", 30, 9, ASCII)
    assert all(text.isascii() for row in rows for text, _ in row)
