"""A history that takes long to read: the screen shows it, and keys act meanwhile."""

from __future__ import annotations

import pytest

from tests.support.canned import CannedSource, opened, started, steps
from tests.support.screen import Dashboard, settle, shows
from trainer.run.log.run_events import StateChanged


class LongHistory(CannedSource):
    """A log that grows with every read until it is released."""

    def __init__(self) -> None:
        super().__init__(opened(), started(), StateChanged(state="training"))
        self.released = False
        self._step = 1

    def read(self) -> list[bytes]:
        if not self.released:
            self.add(steps(self._step, 1))
            self._step += 1
        return super().read()


async def test_keys_act_while_a_long_history_is_read(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.app.run_controller._READ_FOR_S", 0.0)
    source = LongHistory()
    async with dashboard(source) as (app, pilot):
        await settle(pilot, lambda: shows(app, "reading the log"), "the notice")
        assert not shows(app, "training"), "an outdated state"
        assert not shows(app, "ETA")
        await pilot.press("question_mark")
        await settle(pilot, lambda: app.screen is not app.current.screen, "the help")
        await pilot.press("escape")
        await settle(pilot, lambda: app.screen is app.current.screen, "the dashboard again")
        assert app.current.scene.behind
        source.released = True
        await settle(pilot, lambda: shows(app, "training") and not shows(app, "reading the log"), "the current state")
        assert app.current.view.step == source._step - 1
        await settle(pilot, lambda: shows(app, f"step {source._step - 1:,}/"), "the current step")


async def test_new_events_that_take_long_to_read_are_not_a_long_history(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that ends by time with nothing left is not the beginning of a long history."""
    monkeypatch.setattr("tui.app.run_controller._READ_FOR_S", 0.0)
    source = CannedSource(opened(), started(), StateChanged(state="training"))
    async with dashboard(source) as (app, pilot):
        await settle(pilot, lambda: shows(app, "training"), "the state")
        assert not app.current.scene.behind
        before = app.current.scene.version
        source.add(steps(1, 7))
        await settle(pilot, lambda: shows(app, "step 7/"), "the steps")
        assert app.current.scene.version > before
        assert app.current.scene.heard_s > 0
