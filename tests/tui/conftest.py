"""Fixtures for tests of the dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.canned import START, Recorder
from tests.support.screen import App, Dashboard, settle
from trainer.run.control.commands import ControlPort
from trainer.run.folder.run_dir import RunDir
from trainer.session.training_thread import TrainingThread
from tui.app.app import DashboardApp
from tui.state.run_port import EventSource, RunPort
from tui.state.ui_settings import UiSettings


class HandClock:
    """A clock, in seconds, that only a test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def key_clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """The clock by which too early keys are recognised, independent of the machine's speed."""
    clock = HandClock()
    monkeypatch.setattr("tui.app.screens.held_key_guard.monotonic", clock)
    return clock


@pytest.fixture
def dashboard(tmp_path: Path) -> Dashboard:
    """Opens a dashboard over a source at a terminal size and a fixed time."""

    @asynccontextmanager
    async def run(
        source: EventSource,
        control: ControlPort | None = None,
        size: tuple[int, int] = (120, 40),
        now: float = START + 30,
        thread: TrainingThread | None = None,
    ) -> AsyncIterator[App]:
        port = RunPort(run_dir=RunDir(tmp_path), source=source, control=control or Recorder(), thread=thread)
        app = DashboardApp(port, UiSettings(theme="dark", redraw_hz=10.0), clock=lambda: now)
        async with app.run_test(size=size) as pilot:
            run = app.current
            await settle(
                pilot, lambda: app._has_drawn and (bool(run.screen._drawn) or run.scene.behind), "the first drawing"
            )
            await pilot.pause(0.1)
            yield app, pilot

    return run
