"""Redrawing of the dashboard: only what has changed, and not at the cost of training."""

from __future__ import annotations

import time

import pytest

from tests.support.canned import steps, training_run
from tests.support.screen import Dashboard, settle
from trainer.run.log.run_events import Heartbeat, StateChanged
from tui.app.screens.dashboard import DashboardScreen
from tui.widgets.header import Header
from tui.widgets.pane import Pane


async def test_a_paused_screen_sends_nothing(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    source = training_run()
    source.add(StateChanged(state="paused"))
    async with dashboard(source) as (_app, pilot):
        refreshed: list[object] = []
        monkeypatch.setattr(Pane, "refresh", lambda self, *regions, **_: refreshed.append((self.id, regions)))
        source.add(Heartbeat())
        await pilot.pause(1.0)
        assert refreshed == []


async def test_without_new_events_only_the_clock_is_drawn(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = training_run()
    async with dashboard(source) as (app, pilot):
        screen, scene = app.current.screen, app.current.scene

        def is_drawn() -> bool:
            panes = [pane.id or "" for pane in screen.shown_panes() if not pane.follows_clock]
            return all(screen._versions.get(name) == scene.version for name in panes)

        await settle(pilot, is_drawn, "the first drawing")  # the slower it was, the longer the rest after it
        drawn: set[str | None] = set()
        monkeypatch.setattr(Pane, "paint", lambda self, _scene: drawn.add(self.id))
        await settle(pilot, lambda: bool(drawn), "the clock")
        assert drawn == {"header"}
        source.add(Heartbeat())
        await settle(pilot, lambda: {"loss", "classes", "events", "keys"} <= drawn, "all panes after an event")


async def test_a_changed_figure_refreshes_a_few_cells(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    source = training_run()
    source.add(steps(301, 1))
    async with dashboard(source) as (_app, pilot):
        cells: list[int] = []
        monkeypatch.setattr(
            Header, "refresh", lambda self, *regions, **_: cells.append(sum(region.area for region in regions))
        )
        source.add(steps(302, 1))
        await settle(pilot, lambda: bool(cells), "the header")
        assert sum(cells) < 60


async def test_a_drawing_is_followed_by_a_rest_that_a_key_ends(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with dashboard(training_run()) as (app, _):
        screen, painted = app.screen, []
        assert isinstance(screen, DashboardScreen)
        monkeypatch.setattr(Pane, "paint", lambda pane, _scene: painted.append(pane.id))
        monkeypatch.setattr("tui.app.screens.dashboard.DRAW_SHARE", 1e-9)  # so that every rest is the longest

        def drawn(at: float, *, computing: bool = True) -> list[str]:
            painted.clear()
            app.current.scene.version += 1
            screen.draw(at, 0.4, computing=computing)
            return list(painted)

        began = time.monotonic() + 100
        assert {"loss", "lr"} <= set(drawn(began))
        assert drawn(began + 0.9) == []
        assert drawn(began + 1.1) == ["header"], "the clock advances"
        assert {"loss", "lr"} <= set(drawn(began + 1.2, computing=False)), "no rest while the run does not compute"
        screen.draw_next("lr")
        assert drawn(began + 1.4) == ["lr"], "a key does not wait"
        assert "loss" not in drawn(began + 3.3)
        assert {"loss", "lr"} <= set(drawn(began + 6.0))
