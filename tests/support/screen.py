"""Reads the dashboard's screen as text and waits for texts on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from textual.app import App as TextualApp
from textual.pilot import Pilot

from tui.app.app import DashboardApp
from tui.state.run_port import EventSource

App = tuple[DashboardApp, Pilot[int]]
Dashboard = Callable[..., AbstractAsyncContextManager[App]]


def screen_text(app: TextualApp[Any]) -> str:
    """The characters on the screen, line by line."""
    width, height = app.size
    lines = [strip.text for strip in app.screen._compositor.render_strips()[:height]]
    return "\n".join(line[:width] for line in lines)


def shows(app: TextualApp[Any], part: str) -> bool:
    """Whether a text is on the screen."""
    return part in screen_text(app)


async def settle(pilot: Pilot[Any], condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; fail with the screen after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}\n{screen_text(pilot.app)}"
        await pilot.pause(0.05)


async def see(pilot: Pilot[Any], text: str) -> None:
    """Wait until a text is on the screen: panes are drawn one after the other, so one can come later than its neighbour."""
    await settle(pilot, lambda: shows(pilot.app, text), repr(text))


async def shown(dashboard: Dashboard, source: EventSource, **settings: object) -> str:
    """The first screen of a dashboard over a source."""
    async with dashboard(source, **settings) as (app, _):
        return screen_text(app)
