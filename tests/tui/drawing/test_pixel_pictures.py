"""Pictures that the terminal draws itself: detection of the protocol, and places of the pictures."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.canned_pictures import with_pictures
from tests.support.screen import Dashboard, settle, shows
from trainer.run.folder.run_dir import RunDir
from tui.app.app import DashboardApp
from tui.drawing.pixel_pictures import BLOCKS, KITTY, SIXEL, VARIABLE, cell_size, protocol_for
from tui.widgets import pictures

pytest.importorskip("textual_image")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, BLOCKS),
        ({"TERM": "xterm-kitty"}, BLOCKS),
        ({"TERM": "xterm-kitty", VARIABLE: "kitty"}, KITTY),
        ({"TERM": "foot-extra"}, SIXEL),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, SIXEL),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, SIXEL),
        ({"TERM": "foot", "TMUX": "/tmp/tmux-0/default,1,0"}, BLOCKS),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0", VARIABLE: "sixel"}, SIXEL),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, BLOCKS),
        ({"TERM": "foot", VARIABLE: "blocks"}, BLOCKS),
        ({"TERM": "foot", VARIABLE: "nonsense"}, BLOCKS),
    ],
)  # fmt: skip
def test_the_protocol_is_chosen_from_the_environment(environment: dict[str, str], expected: str) -> None:
    assert protocol_for(environment, all_colours=True) == expected
    assert protocol_for(environment, all_colours=False) == (BLOCKS if expected == KITTY else expected)


def test_without_the_library_pictures_are_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert protocol_for({"TERM": "foot"}, all_colours=True) == BLOCKS


def test_a_terminal_without_pixel_size_has_no_cell_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    assert cell_size() is None


@pytest.mark.parametrize("protocol", [SIXEL, KITTY])
async def test_pictures_cover_their_tiles_and_disappear_with_the_page(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr(pictures, "cell_size", lambda: (10, 20))
    monkeypatch.setattr(DashboardApp, "picture_protocol", protocol)
    async with dashboard(with_pictures(RunDir(tmp_path))) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, partial(shows, app, "most confident"), "the page")
        page = app.screen.query_one("#page-mistakes")
        await settle(pilot, lambda: bool(page.children), "the pictures")
        await pilot.pause(0.2)
        places = [(child.region.x, child.region.y, *child.region.size) for child in page.children]
        assert places == [(2, 3, 32, 16), (36, 3, 32, 16)], "below the header, within the border"
        assert "▀" not in "".join(text for row in page._rows for text, _ in row), "no blocks below it"  # type: ignore[attr-defined]
        first = page.children[0]
        assert first in app.screen._compositor.visible_widgets
        await pilot.press("escape")
        await settle(pilot, partial(shows, app, "Learning rate"), "the overview")
        assert first not in app.screen._compositor.visible_widgets
