"""The last line: which keys it offers at which width and of which run."""

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
    """The line as it is drawn."""
    situation = dataclasses.replace(TRAINING, **changes)  # type: ignore[arg-type]
    pane = KeyBar(lambda: situation)
    row = pane.rows_for(DisplayState(view=RunView(), unseen_output=unseen), width, 1)[0]
    return "".join(text for text, _ in exact(row, width))


@pytest.mark.parametrize("width", range(36, 220))
def test_the_line_fits_and_always_tells_of_help_and_the_way_out(width: int) -> None:
    line = bar(width)
    assert line.rstrip().endswith("? help  q quit")
    unseen = bar(width, unseen=12)
    assert unseen.rstrip().endswith("? help  q quit")
    assert "+12" in unseen


def test_what_is_asked_for_most_stands_there_first() -> None:
    assert bar(80).split("  ")[:5] == [" p pause", "c save", "e evaluate", "x export", "l LR"]
    assert "a plan" in bar(120)
    assert "n note" in bar(120)
    assert "f find LR" in bar(120)
    wide = bar(200)
    for action in ACTIONS:
        assert (f"{action.key} {action.label}  " in wide) is (action.bar > 0) or action.name == "leave", action.name


def test_of_a_run_that_has_ended_only_what_can_still_be_done() -> None:
    line = bar(120, state=RunState.FINISHED, can_control=False, refusal="it has ended", session_open=False)
    open_still = bar(120, state=RunState.FINISHED)
    assert "pause" not in open_still
    assert "e evaluate  x export" in open_still
    for gone in ("pause", "evaluate", "export", "plan", "detach"):
        assert gone not in line
    for left in ("r runs", "m messages", "y log", "? help", "q quit"):
        assert left in line


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.EVALUATING, RunState.SAVING])
def test_a_run_that_is_held_can_be_resumed_whatever_it_does_meanwhile(state: RunState) -> None:
    view = RunView()
    view.held = True
    assert bar(120, view=view, state=state).startswith(" p resume")


def test_the_key_that_tries_rates_also_stops_it() -> None:
    view = RunView()
    view.state_detail = "learning rates"
    assert "f stop" in bar(120, view=view, state=RunState.EVALUATING)


async def test_a_recorded_run_offers_no_key_that_steers(dashboard: Dashboard) -> None:
    source = CannedSource(opened(), started(), StateChanged(state="training"), steps(1), StateChanged(state="finished"))
    text = await shown(dashboard, source, control=NoControl(lambda: ("nobody trains this run", Presence.GONE)))
    assert "q quit" in text.splitlines()[-1]
    assert "pause" not in text.splitlines()[-1]


async def test_a_key_that_cannot_act_for_now_stays_in_its_place(dashboard: Dashboard) -> None:
    async with dashboard(training_run(), Recorder()) as (app, pilot):
        before = screen_text(app).splitlines()[-1]
        for key in ("e", "f"):
            await pilot.press(key)
            await pilot.pause(0.2)
            assert screen_text(app).splitlines()[-1] == before
