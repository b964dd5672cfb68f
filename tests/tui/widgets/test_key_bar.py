"""The key bar, at different widths and for different states of a run."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.canned import CannedSource, Recorder, opened, started, steps, training_run
from tests.support.screen import Dashboard, screen_text, shown
from trainer.run.control.commands import NoControl
from trainer.run.log.run_events import StateChanged
from trainer.run.status import Presence, RunState
from trainer.run.view.run_view import RunView
from tui.state.display_state import DisplayState
from tui.state.keys import ACTIONS, ActionContext
from tui.widgets.key_bar import KeyBar
from tui.widgets.pane import exact

TRAINING = ActionContext(
    view=RunView(), state=RunState.TRAINING, can_control=True, refusal="", session_open=True, pending=frozenset()
)


def bar(width: int, unseen: int = 0, **changes: object) -> str:
    """The drawn line."""
    situation = dataclasses.replace(TRAINING, **changes)  # type: ignore[arg-type]
    pane = KeyBar(lambda: situation)
    row = pane.rows_for(DisplayState(view=RunView(), unseen_output=unseen), width, 1)[0]
    return "".join(text for text, _ in exact(row, width))


@pytest.mark.parametrize("width", range(36, 220))
def test_the_line_fits_and_always_has_help_and_quit(width: int) -> None:
    line = bar(width)
    assert line.rstrip().endswith("? help  q quit")
    unseen = bar(width, unseen=12)
    assert unseen.rstrip().endswith("? help  q quit")
    assert "+12" in unseen


def test_the_most_used_keys_come_first() -> None:
    assert bar(80).split("  ")[:5] == [" p pause", "c save", "e evaluate", "x export", "l LR"]
    assert "a plan" in bar(120)
    assert "n note" in bar(120)
    assert "f find LR" in bar(120)
    wide = bar(200)
    for action in ACTIONS:
        assert (f"{action.key} {action.label}  " in wide) is (action.bar > 0) or action.name == "leave", action.name


def test_an_ended_run_has_only_keys_that_can_act() -> None:
    line = bar(120, state=RunState.FINISHED, can_control=False, refusal="it has ended", session_open=False)
    open_still = bar(120, state=RunState.FINISHED)
    assert "pause" not in open_still
    assert "e evaluate  x export" in open_still
    for gone in ("pause", "evaluate", "export", "plan", "detach"):
        assert gone not in line
    for left in ("r runs", "m messages", "y log", "? help", "q quit"):
        assert left in line


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.EVALUATING, RunState.SAVING])
def test_a_held_run_can_be_resumed_in_any_state(state: RunState) -> None:
    view = RunView()
    view.paused = True
    assert bar(120, view=view, state=state).startswith(" p resume")


def test_the_bar_offers_to_stop_the_range_test() -> None:
    view = RunView()
    view.state_detail = "learning rates"
    assert "f stop" in bar(120, view=view, state=RunState.EVALUATING)


async def test_a_recorded_run_has_no_control_keys(dashboard: Dashboard) -> None:
    source = CannedSource(opened(), started(), StateChanged(state="training"), steps(1), StateChanged(state="finished"))
    text = await shown(dashboard, source, control=NoControl(lambda: ("this run is not active", Presence.GONE)))
    assert "q quit" in text.splitlines()[-1]
    assert "pause" not in text.splitlines()[-1]


async def test_a_temporarily_disabled_key_keeps_its_place(dashboard: Dashboard) -> None:
    async with dashboard(training_run(), Recorder()) as (app, pilot):
        before = screen_text(app).splitlines()[-1]
        for key in ("e", "f"):
            await pilot.press(key)
            await pilot.pause(0.2)
            assert screen_text(app).splitlines()[-1] == before
