"""The dashboard of a run that has failed, fallen silent or vanished, or whose log cannot be read."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from tests.support.canned import (
    START,
    CannedSource,
    Recorder,
    opened,
    started,
    steps,
    training_run,
)
from tests.support.screen import Dashboard, screen_text, see, settle, shown, shows
from trainer.run.control import commands as cmd
from trainer.run.control.commands import UndeliverableError
from trainer.run.log.run_events import Failed, Heartbeat, StateChanged
from trainer.run.status import Presence
from tui.app.app import DashboardApp
from tui.widgets.curves import LossPane


async def test_a_vanished_trainer_is_shown_as_lost(dashboard: Dashboard) -> None:
    class Gone(Recorder):
        def send(self, command: cmd.Command) -> None:
            self.can_control, self.presence, self.refusal = False, Presence.GONE, "this run is not active"
            raise UndeliverableError(f"{command.name}: the trainer has gone")

    async with dashboard(training_run(), Gone()) as (app, pilot):
        await pilot.press("c")
        await see(pilot, "checkpoint: the trainer has gone")
        assert "● saving" not in screen_text(app)
        await settle(pilot, partial(shows, app, "● lost"), "the loss")
        assert re.search(r"last event \d+ s ago; resume with: r18-tui --resume", screen_text(app))
        await pilot.press("p")
        await see(pilot, "this run is not active")
        await pilot.press("q")  # leaves without a question
        await pilot.pause(0.1)
    assert app.return_value == 0


async def test_a_failure_stays_on_the_screen_with_the_remedy(dashboard: Dashboard) -> None:
    source = CannedSource(opened(), Failed(
        error="runs/x: train/ is missing\nfound:\n  pictures/", exit_code=2, checkpoint="step-00000004.safetensors",
        resume="r18-tui --resume runs/demo",
    ))  # fmt: skip
    text = await shown(dashboard, source)
    for part in (
        "● failed", "train/ is missing", "pictures/", "step-00000004", "r18-tui --resume runs/demo", "exit code 2",
    ):  # fmt: skip
        assert part in text, f"{part!r} is missing in\n{text}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file"), "the run directory was moved or deleted; q leaves"),
        (OSError(116, "Stale file handle"), "the log cannot be read (Stale file handle); retrying"),
    ],
)
async def test_an_unreadable_log_is_reported_and_retried(dashboard: Dashboard, error: OSError, text: str) -> None:
    class Failing(CannedSource):
        failing = False

        def read(self) -> list[bytes]:
            if self.failing:
                raise error
            return super().read()

    source = Failing(opened(), started(), StateChanged(state="training"), steps(1))
    async with dashboard(source) as (app, pilot):
        source.failing = True
        await settle(pilot, partial(shows, app, text), "the reason")
        source.failing = False
        source.add(steps(101))
        await settle(pilot, partial(shows, app, "step 200"), "events that came meanwhile")


async def test_a_run_with_new_events_is_not_lost_after_a_clock_jump(dashboard: Dashboard) -> None:
    source = CannedSource(opened(), started(), StateChanged(state="training"), steps(1))
    async with dashboard(source, now=START + 86_400.0) as (app, pilot):
        await settle(pilot, partial(shows, app, "● lost"), "no recent events")
        source.add(Heartbeat())
        await settle(pilot, partial(shows, app, "● training"), "a heartbeat")


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_a_stopped_trainer_is_shown_with_the_command_to_continue_it(
    dashboard: Dashboard, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.app.run_controller.stopped_pid", lambda _run_dir: 4711)
    control = Recorder()
    control.presence = Presence.THERE
    async with dashboard(training_run(), control, now=START + 10_000, size=size) as (app, pilot):
        await settle(pilot, partial(shows, app, "kill -CONT 4711"), "what to do")
        assert not shows(app, "disk")
        monkeypatch.setattr("tui.app.run_controller.stopped_pid", lambda _run_dir: None)
        app.current.follow_trainer()
        await settle(pilot, lambda: not shows(app, "kill -CONT"), "it runs again")


@pytest.mark.parametrize("state", ["paused", "training"])
async def test_no_eta_is_shown_while_no_step_is_taken(dashboard: Dashboard, state: str) -> None:
    source = training_run()
    source.add(StateChanged(state=state))
    assert ("ETA —" in await shown(dashboard, source)) is (state == "paused")


async def test_a_silent_run_is_shown_as_lost(dashboard: Dashboard) -> None:
    text = await shown(dashboard, training_run(), now=START + 10_000)
    assert "● lost" in text


async def test_a_silent_run_with_a_live_process_is_not_lost_but_reported(dashboard: Dashboard) -> None:
    control = Recorder()
    control.presence = Presence.THERE
    async with dashboard(training_run(), control, now=START + 10_000) as (app, pilot):
        text = screen_text(app)
        assert "● training" in text
        assert re.search(r"no events for 2:4\d:\d\d, though its process is there: its disk may be full", text)
        await pilot.press("p")
    assert [type(command) for command in control.sent] == [cmd.Pause]


async def test_an_error_of_the_dashboard_is_logged_and_ends_only_the_dashboard(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: LossPane, *_: object) -> None:
        raise RuntimeError("the pane is broken")

    async def crash() -> None:
        source = training_run()
        async with dashboard(source) as (app, pilot):
            apps.append(app)
            monkeypatch.setattr(LossPane, "rows_for", broken)
            source.add(steps(301))
            await settle(pilot, lambda: app.crash is not None, "the end")

    apps: list[DashboardApp] = []
    with pytest.raises(RuntimeError, match="the pane is broken"):
        await crash()
    assert isinstance(apps[0].crash, RuntimeError)
    assert "the pane is broken" in (tmp_path / "log.txt").read_text()
