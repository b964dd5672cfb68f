"""Keys of the dashboard: commands and their answers, dialogs, leaving."""

from __future__ import annotations

import re
from functools import partial

import pytest
from textual.widgets import Input

from tests.support.canned import (
    Recorder,
    diverged,
    training_run,
)
from tests.support.screen import Dashboard, screen_text, see, settle, shows
from tests.tui.conftest import HandClock
from trainer.run.control import commands as cmd
from trainer.run.control.commands import NoControl
from trainer.run.log.run_events import Acknowledged, Failed, Finished, NoteAdded, StateChanged
from trainer.run.status import Presence
from tui.app.screens.dialogs import DivergedScreen, LearningRateScreen, QuitScreen
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S, READING_DELAY_S


@pytest.mark.parametrize(
    ("key", "kind", "word"),
    [
        ("p", cmd.Pause, "pausing"),
        ("c", cmd.SaveCheckpoint, "saving"),
        ("e", cmd.Evaluate, "evaluating"),
        ("x", cmd.Export, "exporting"),
    ],
)
async def test_a_key_sends_its_command_and_shows_at_once(dashboard: Dashboard, key: str, kind: type, word: str) -> None:
    control, source = Recorder(), training_run()
    async with dashboard(source, control) as (app, pilot):
        await pilot.press(key)
        assert [type(command) for command in control.sent] == [kind]
        await see(pilot, f"● {word}")
        await pilot.press(key)
        assert len(control.sent) == 1, "a second press waits for the answer to the first"
        source.add(Acknowledged(command_id=control.sent[0].command_id, command="x", ok=True))
        await settle(pilot, lambda: "● training" in screen_text(app), "the acknowledgement")


async def test_a_failure_replaces_a_pending_command(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source) as (app, pilot):
        await pilot.press("e")
        await see(pilot, "● evaluating")
        source.add(Failed(error="out of memory", exit_code=1, checkpoint="", resume=""))
        await settle(pilot, lambda: "● failed" in screen_text(app), "the failure")


async def test_p_resumes_a_paused_run(dashboard: Dashboard) -> None:
    control, source = Recorder(), training_run()
    source.add(StateChanged(state="paused"))
    async with dashboard(source, control) as (_, pilot):
        await see(pilot, "● paused ")
        await see(pilot, "p resume")
        await pilot.press("p")
        assert isinstance(control.sent[0], cmd.Unpause)


async def test_a_refused_command_shows_the_reason(dashboard: Dashboard) -> None:
    control, source = Recorder(), training_run()
    async with dashboard(source, control) as (app, pilot):
        await pilot.press("e")
        source.add(
            Acknowledged(command_id=control.sent[0].command_id, command="evaluate", ok=False, message="busy already")
        )
        await settle(pilot, lambda: "evaluate: busy already" in screen_text(app), "the refusal")


async def test_a_typed_learning_rate_is_checked_and_sent(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("l")
        assert isinstance(app.screen, LearningRateScreen)
        await pilot.press("0", "enter")
        await see(pilot, "a learning rate is a number above 0")
        await pilot.press(".", "0", "2", "enter")
        await pilot.pause()
        assert [command.lr for command in control.sent if isinstance(command, cmd.SetLr)] == [0.02]
        await pilot.press("l", "escape")
        assert len(control.sent) == 1


async def test_enter_twice_sets_a_rate_once(dashboard: Dashboard) -> None:
    """The second press comes before the dialog has closed."""
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("l")
        await settle(pilot, partial(shows, app, "Learning rate of the next step"), "the dialog")
        field = app.screen.query_one(Input)
        for _ in range(2):
            field.post_message(Input.Submitted(field, "0.01"))
        await settle(pilot, lambda: not shows(app, "Learning rate of the next step"), "the dashboard")
        assert app.crash is None
    assert [type(command) for command in control.sent] == [cmd.SetLr]


async def test_commands_to_an_inactive_run_are_refused(dashboard: Dashboard) -> None:
    control = NoControl(lambda: ("view only", Presence.UNKNOWN))
    async with dashboard(training_run(), control) as (_, pilot):
        for key in "pcexl":
            await pilot.press(key)
            await see(pilot, "view only")
        await see(pilot, "read-only")


async def test_quitting_asks_and_can_be_cancelled(dashboard: Dashboard) -> None:
    control = Recorder()

    class Thread:
        alive = True
        exit_code = 0

    async with dashboard(training_run(), control) as (app, pilot):
        object.__setattr__(app.current.port, "thread", Thread())
        for key in ("q", "ctrl+c", "ctrl+q"):
            await pilot.press(key)
            assert isinstance(app.screen, QuitScreen)
            await pilot.press("escape")
        assert control.sent == []
        await pilot.press("q", "s")
        await pilot.pause()
        assert [type(command) for command in control.sent] == [cmd.Stop]
        await see(pilot, "● stopping")
        Thread.alive = False
        await pilot.pause(0.3)
    assert app.return_value == 0


async def test_d_detaches_without_stopping_the_run(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("d")
        await pilot.pause(0.1)
    assert (app.detached, app.return_value, control.sent) == (True, 0, [])


async def test_d_does_not_detach_from_a_run_that_has_ended(dashboard: Dashboard) -> None:
    source = training_run()
    source.add(Finished(reason="completed", step=300, epoch=3.0, exit_code=0))
    async with dashboard(source) as (app, pilot):
        await pilot.press("d")
        await see(pilot, "detach: the run is finished; q leaves it")
        assert not app.detached


async def test_quitting_an_attached_dashboard_offers_to_leave_first_and_to_stop(
    dashboard: Dashboard, key_clock: HandClock
) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("q", "s")
        await pilot.pause()
        assert [type(command) for command in control.sent] == [cmd.Stop]
        await see(pilot, "● stopping")  # the screen stays until the run has ended
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("q")
        key_clock.now += KEY_REPEAT_DELAY_S
        await pilot.press("q")
        await pilot.pause(0.1)
    assert app.detached
    assert len(control.sent) == 1


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_a_held_key_opens_the_question_but_does_not_answer(
    dashboard: Dashboard, key: str, key_clock: HandClock
) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press(key)
        key_clock.now += 0.66  # before a keyboard repeats a key
        for _ in range(30):
            await pilot.press(key)
            key_clock.now += 0.03
        assert isinstance(app.screen, QuitScreen)
        assert not control.sent
        assert not app.detached
        await pilot.press("escape")
        assert not isinstance(app.screen, QuitScreen)


async def test_a_diverged_run_offers_a_rollback_once(dashboard: Dashboard, key_clock: HandClock) -> None:
    source, control = training_run(), Recorder()
    async with dashboard(source, control) as (app, pilot):
        await pilot.press("b")
        await settle(pilot, lambda: shows(app, "go back: only after non-finite steps"), "nothing to go back from")
        source.add(diverged(), StateChanged(state="paused"))
        await settle(pilot, lambda: shows(app, "back to step-00000100.safetensors"), "the question")
        await pilot.press("escape")
        await settle(pilot, lambda: app.screen is app.current.screen and not shows(app, "back to"), "no question")
        await pilot.press("b")
        assert [type(command) for command in control.sent] == [cmd.GoBack]
        source.add(StateChanged(state="training"), diverged(checkpoint=""), StateChanged(state="paused"))
        await settle(pilot, lambda: shows(app, "set a lower learning rate"), "the next question")
        assert not shows(app, "back to")
        await pilot.press("l")  # too early: may have been meant for the dashboard
        assert isinstance(app.screen, DivergedScreen)
        key_clock.now += READING_DELAY_S
        await pilot.press("l")
        await settle(pilot, lambda: isinstance(app.screen, LearningRateScreen), "the rate")


async def test_a_read_only_dashboard_does_not_ask_about_a_diverged_run(dashboard: Dashboard) -> None:
    source = training_run()
    source.add(diverged(), StateChanged(state="paused"))
    async with dashboard(source, NoControl(lambda: ("view only", Presence.UNKNOWN))) as (app, pilot):
        await settle(pilot, lambda: shows(app, "10 non-finite steps in a row"), "the event")
        assert app.screen is app.current.screen


async def test_a_note_is_sent_and_marked_at_its_step(dashboard: Dashboard) -> None:
    control, source = Recorder(), training_run()
    async with dashboard(source, control) as (app, pilot):
        await pilot.press("n", *"good", "enter")
        await pilot.pause()
        assert [command.text for command in control.sent if isinstance(command, cmd.AddNote)] == ["good"]
        source.add(Acknowledged(command_id=control.sent[0].command_id, command="note", ok=True))
        source.add(NoteAdded(step=150, text="good [red]"))
        await settle(pilot, partial(shows, app, "note at step 150: good [red]"), "the event")
        await settle(pilot, lambda: re.search(r"└.*n.*┬", screen_text(app)) is not None, "below the curves")
        await pilot.press("n", "enter")
        await pilot.press("n", "x", "escape")
        assert len(control.sent) == 1, "an empty or cancelled note is not sent"
