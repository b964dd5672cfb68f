"""Keys act in order and only on the visible screen, and an application does not end unasked."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.app import App as TextualApp
from textual.app import ComposeResult
from textual.widgets import Input

from tests.support.canned import Recorder, evaluated, opened, started, steps, training_run
from tests.support.screen import Dashboard, screen_text, settle
from tests.support.written_runs import write_log
from tests.tui.conftest import HandClock
from trainer.run.control import commands as cmd
from trainer.run.control.commands import NOTE_LENGTH
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Finished, StateChanged
from tui.app.app import DashboardApp
from tui.app.screens import LIST_OF_RUNS
from tui.app.screens.dashboard import DashboardScreen
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S
from tui.app.screens.start_screen import StartApp
from tui.app.terminal_app import TerminalApp, UnexpectedExitError
from tui.state.run_port import RunPort, recorded_port
from tui.terminal.textual_driver import TerminalDriver


def press_together(app: TextualApp[Any], *keys: str) -> None:
    """Send keys that arrive in one piece, as after fast typing or over a slow link."""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else None))


class OneField(TerminalApp[None]):
    def compose(self) -> ComposeResult:
        yield Input("0.05")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["backspace", "1", "2", "3"], "123"),
        (["1", "2", "backspace", "3"], "13"),
        (["end", "left", "9", "end", "7"], "0.0957"),
        (["9", "ctrl+u", "4"], "4"),
        (["end", *["backspace"] * 4, *"0.0123456789"], "0.0123456789"),
    ],
)
async def test_keys_that_arrive_together_act_in_order(keys: list[str], value: str) -> None:
    app = OneField()
    async with app.run_test() as pilot:
        press_together(app, *keys)
        await settle(pilot, lambda: app.query_one(Input).value == value, "the text")
        await pilot.pause(0.05)
        assert app.query_one(Input).value == value


async def test_text_typed_together_with_its_dialogs_key_is_accepted(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (_, pilot):
        press_together(pilot.app, "l", "ctrl+u", *"0.025", "enter", "n", *"slower", "enter", "c")
        await settle(pilot, lambda: len(control.sent) == 3, "all three commands")
    rate, note, save = control.sent
    assert isinstance(rate, cmd.SetLr)
    assert rate.lr == 0.025
    assert isinstance(note, cmd.AddNote)
    assert note.text == "slower"
    assert isinstance(save, cmd.SaveCheckpoint)


@pytest.mark.parametrize("way", ["?", "l", "n", "a", "m", "r", "ctrl+p", "ctrl+p|theme|enter", "r|ctrl+p", "m|ctrl+p"])
async def test_ctrl_c_leaves_every_screen(dashboard: Dashboard, way: str) -> None:
    control, key = Recorder(), "ctrl+q" if "|" in way else "ctrl+c"
    async with dashboard(training_run(), control) as (app, pilot):
        for step in way.split("|"):
            await pilot.press(*(step if step == "theme" else [step.replace("?", "question_mark")]))
            await pilot.pause(0.1)
        assert app.screen is not app.current.screen
        while app.screen is not app.current.screen:
            depth = len(app.screen_stack)
            await pilot.press(key)
            await pilot.pause(0.05)
            assert len(app.screen_stack) < depth
        assert not control.sent
        assert app._running


async def test_the_palette_offers_the_commands_of_the_screen_below_it(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        offered = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Pause", "Save", "Show loss", "Messages", "Theme"} <= offered
        assert "Unfreeze" not in offered, "nothing is frozen"
        for key, wanted in (
            ("m", {"Theme"}),
            ("question_mark", {"Theme"}),
            ("l", {"Theme"}),
            ("r", {"Theme", "Open", "Compare", "Resume", "Delete", "Back"}),
        ):
            await pilot.press(key)
            assert {command.title for command in app.get_system_commands(app.screen)} == wanted
            await pilot.press("escape")
            await settle(pilot, lambda: isinstance(app.screen, DashboardScreen), "the dashboard")


async def test_a_palette_command_acts_only_on_its_screen(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        (pause,) = (command for command in app.get_system_commands(app.screen) if command.title == "Pause")
        await pilot.press("m")
        pause.callback()
        await pilot.pause(0.1)
        assert not control.sent
        await pilot.press("escape")
        pause.callback()
        await settle(pilot, lambda: [type(sent) for sent in control.sent] == [cmd.Pause], "it pauses")


_WORDS = ("pause", "runs", "messages", "open", "delete")
"""Names of commands, typed letter by letter: they act where a palette is open."""
_WALKED = (
    *("r", "r", "m", "question_mark", "escape", "escape", "enter", "enter", "down", "up", "p", "c", "e", "n", "n", "a", "l"),
    *("tab", "5", "0", "ctrl+p", "ctrl+p", "d", "space", "y", "s", "q", "ctrl+c"),
    *_WORDS,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
async def test_only_the_visible_run_receives_commands_on_any_path_of_screens(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_clock: HandClock, seed: int
) -> None:
    """`demo` is the run of this process; `left` and `right` are opened from the list and take commands, too."""
    controls: dict[str, Recorder] = {"demo": Recorder()}
    for name in ("left", "right"):
        write_log(
            tmp_path.parent, name, dataclasses.replace(opened(), run=name), started(), StateChanged(state="training"),
            steps(1), evaluated(1),
        )  # fmt: skip

    def port_of(run_dir: RunDir) -> RunPort:
        controls[run_dir.name] = Recorder()
        return dataclasses.replace(recorded_port(run_dir), control=controls[run_dir.name])

    monkeypatch.setattr("tui.app.runs_list.recorded_port", port_of)
    draw = random.Random(seed)
    async with dashboard(training_run(), controls["demo"]) as (app, pilot):
        for _ in range(120):
            if app._exit or not app._running:
                break
            shown = _run_on_screen(app)
            before = {name: len(control.sent) for name, control in controls.items()}
            step = draw.choice(_WALKED)
            key_clock.now += draw.choice((0.0, KEY_REPEAT_DELAY_S))
            await pilot.press(*(step if step in _WORDS else [step]))
            await pilot.pause(0.02)
            acted = {name for name, control in controls.items() if len(control.sent) > before.get(name, 0)}
            assert acted <= {shown}, f"{step}: {acted} acted, but {shown} was on the screen"
            assert app.crash is None


def _run_on_screen(app: DashboardApp) -> str:
    """The name at the top of the visible dashboard, also below a dialog; empty for the list of runs."""
    if app.screen.id == "runs":
        return ""
    lines = next(screen for screen in reversed(app.screen_stack) if isinstance(screen, DashboardScreen))
    return lines._compositor.render_strips()[0].text.split()[1]


async def test_an_application_that_ends_unasked_reports_a_failure(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, _):
        app._close_messages_no_wait()
    assert isinstance(app.ended_by, UnexpectedExitError)
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("d")
    assert app.ended_by is None


async def test_an_error_of_the_key_thread_ends_the_application_with_it() -> None:
    app = TerminalApp[None]()

    async def break_the_keyboard() -> None:
        async with app.run_test() as pilot:
            driver = TerminalDriver(app)
            driver.fileno = -1  # no descriptor, so that the thread fails at once
            driver.run_input_thread()
            await pilot.pause(0.2)

    with pytest.raises(ValueError, match="descriptor"):
        await break_the_keyboard()
    assert isinstance(app.ended_by, ValueError)


def click_together(app: TextualApp[Any], x: int, y: int, times: int = 2) -> None:
    """Send clicks that arrive in one piece."""
    for _ in range(times):
        for kind in (events.MouseDown, events.MouseUp):
            app.post_message(kind(None, x, y, 0, 0, 1, False, False, False, screen_x=x, screen_y=y))


@pytest.mark.parametrize("keys", [("enter", "ctrl+c"), ("enter", "enter"), ("escape", "escape", "ctrl+c")])
@pytest.mark.parametrize("below", ["", "m"])
async def test_keys_sent_together_with_a_palette_choice_end_nothing(
    dashboard: Dashboard, keys: tuple[str, ...], below: str
) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press(*below, "ctrl+p", *"theme")
        await pilot.pause(0.3)
        depth = len(app.screen_stack)
        press_together(app, *keys)
        await pilot.pause(0.5)
        assert app.crash is None
        assert app._running
        assert len(app.screen_stack) >= depth - len(keys)


async def test_a_double_click_on_the_start_screen_opens_one_screen(tmp_path: Path) -> None:
    app = StartApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.2)
        row = next(index for index, line in enumerate(screen_text(app).splitlines()) if "digits" in line[:20])
        click_together(app, 6, row)
        await settle(pilot, lambda: len(app.screen_stack) == 2, "the settings")
        await pilot.pause(0.3)
        assert len(app.screen_stack) == 2
        assert app.crash is None


async def test_ctrl_c_does_not_wait_for_keys_typed_ahead(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("n")
        press_together(app, *"z" * 4000, "ctrl+c")
        await settle(pilot, lambda: app.screen is app.current.screen, "the dialog is left")
        assert not control.sent


async def test_a_paste_longer_than_its_field_is_truncated(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("n", "a")
        app.post_message(events.Paste("b" * 5000))
        await settle(pilot, lambda: len(app.screen.query_one(Input).value) == NOTE_LENGTH, "the longest note")


async def test_a_held_key_that_opened_the_list_resumes_nothing(
    dashboard: Dashboard, tmp_path: Path, key_clock: HandClock
) -> None:
    stopped = Finished(reason="stopped", step=100, epoch=1.0, exit_code=0)
    write_log(tmp_path.parent, "other", opened(), started(), steps(1), stopped)
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("r")
        for _ in range(20):
            await pilot.press("r")
            key_clock.now += 0.1
        assert app.screen.id == LIST_OF_RUNS
        assert app.runs.resume is None
