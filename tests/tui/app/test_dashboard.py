"""The dashboard over canned runs: its contents, the commands of its keys, and refusals."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path

import pytest
from textual.widgets import Input

from tests.support.canned import (
    START,
    CannedSource,
    Recorder,
    diverged,
    evaluated,
    opened,
    started,
    steps,
    training_run,
)
from tests.support.screen import Dashboard, screen_text, see, settle, shown, shows
from tests.tui.conftest import HandClock
from trainer.run.control import commands as cmd
from trainer.run.control.commands import NoControl, UndeliverableError
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Acknowledged, Failed, Finished, Heartbeat, NoteAdded, StateChanged
from trainer.run.status import Presence
from tui.app.app import DashboardApp
from tui.app.screens.dashboard import layout_for
from tui.app.screens.dialogs import DivergedScreen, HelpScreen, LearningRateScreen, QuitScreen
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S, READING_DELAY_S
from tui.state.keys import ACTIONS
from tui.state.pages import PAGES
from tui.state.run_port import RunPort
from tui.state.ui_settings import UiSettings
from tui.widgets.curves import CurvePane, LossPane


async def test_every_pane_shows_its_part_of_the_run(dashboard: Dashboard) -> None:
    text = await shown(dashboard, training_run())
    for part in (
        "r18-tui  demo", "ResNet-18, CIFAR stem, 11.2 M", "A CPU", "bf16, channels_last", "● training", "epoch 3/10",
        "step 300/1,000", "12,800 img/s", "ETA", "Loss", "train 1.043", "test 0.500", "Accuracy", "best 40.0", "Learning rate",
        "falling", "● now", "Memory", "process", "CPU 97 %", "Per-class test accuracy", "worst first", "Time", "compute 90 %",
        "epoch 3", "p pause", "q quit",
    ):  # fmt: skip
        assert part in text, f"{part!r} is missing in\n{text}"


async def test_a_long_device_name_is_dropped_for_the_precision(dashboard: Dashboard) -> None:
    long_name = dataclasses.replace(started(), device={"kind": "cpu", "name": "A CPU of a very long name " * 4})
    text = await shown(dashboard, CannedSource(opened(), long_name, steps(1)))
    header = text.splitlines()[0]
    assert "A CPU of" not in header
    assert "bf16, channels_last" in header


async def test_a_bad_first_evaluation_is_marked_and_does_not_flatten_the_curves(dashboard: Dashboard) -> None:
    first = dataclasses.replace(evaluated(1), loss=13.0)
    only = await shown(dashboard, CannedSource(opened(), started(), steps(1), first))
    assert "15 ┤" in only  # the newest evaluation is on the scale
    assert "above the axis" not in only
    later = await shown(dashboard, CannedSource(opened(), started(), steps(1), first, steps(101), evaluated(2)))
    assert "15 ┤" not in later
    assert "↑ above the axis" in later
    assert sum(line.count("↑") for line in later.splitlines()) == 2  # in the plot and in its legend


@pytest.mark.parametrize("height", [0, 1, 2, 3, 4, 8])
@pytest.mark.parametrize("begun", [True, False])
async def test_curves_fit_into_any_height(dashboard: Dashboard, height: int, begun: bool) -> None:
    async with dashboard(training_run() if begun else CannedSource(opened(), started())) as (app, _):
        for pane in app.query(CurvePane):
            assert len(pane.rows_for(app.current.scene, 60, height)) <= max(height, 2)


async def test_names_from_disk_are_shown_literally(dashboard: Dashboard) -> None:
    text = await shown(dashboard, training_run())
    assert "[red]cat[/]" in text
    assert "ev?[2Jil" in text
    assert "漢字" in text
    assert "\x1b" not in text


async def test_empty_panes_show_what_they_wait_for(dashboard: Dashboard) -> None:
    text = await shown(dashboard, CannedSource(opened()))
    for part in ("loading PyTorch", "waiting for the first step", "first evaluation after epoch 1"):
        assert part in text
    assert text.count("appears when training starts") == 2, "learning rate and memory"
    assert "first reading after 2 s" in await shown(dashboard, CannedSource(opened(), started()))
    preparing = StateChanged(state="preparing", detail="decoding train images", fraction=0.4)
    text = await shown(dashboard, CannedSource(opened(), preparing))
    assert "decoding train images  40%" in text
    timing = StateChanged(state="preparing", detail="timing bf16 channels_last", fraction=0.4)
    text = await shown(dashboard, CannedSource(opened(), timing))
    assert "timing bf16 channels_last  40%" in text
    assert text.count("finding the fastest precision, once") == 2, "loss and accuracy"


@pytest.mark.parametrize(
    ("size", "layout", "parts"),
    [
        ((120, 40), "wide", ["Learning rate", "Per-class"]),
        ((100, 28), "wide", ["Learning rate", "Per-class"]),
        ((80, 24), "medium", ["Loss", "Accuracy", " LR ", " memory ", " speed ", "worst first", "airplane", "q quit"]),
        ((40, 12), "small", ["training", "epoch 3/10", "ETA", "loss", "accuracy", "best 40.0", "airplane", "q quit"]),
        ((30, 8), "tiny", ["training", "300/1,000", "terminal too small"]),
    ],
)
async def test_layouts_fit_their_terminals(
    dashboard: Dashboard, size: tuple[int, int], layout: str, parts: list[str]
) -> None:
    assert layout_for(*size) == layout
    text = await shown(dashboard, training_run(), size=size)
    for part in parts:
        assert part in text, f"{part!r} is missing in\n{text}"


async def test_a_resize_selects_the_layout_that_fits(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        parts = {(40, 12): "ETA", (80, 24): " speed ", (120, 40): "Learning rate", (20, 5): "too small"}
        for size, part in parts.items():
            await pilot.resize_terminal(*size)
            await settle(pilot, partial(shows, app, part), f"{part} at {size}")


@pytest.mark.parametrize("number", [2, 10, 1000])
async def test_any_number_of_classes_fits(dashboard: Dashboard, number: int) -> None:
    classes = [f"class {index}" for index in range(number)]
    text = await shown(dashboard, training_run(classes=classes))
    assert "class 0" in text, "the worst class comes first"
    if number == 1000:
        assert "990 more" in text


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


async def test_a_tick_after_the_last_screen_does_nothing(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source, Recorder()) as (app, _):
        pass
    assert not app.screen_stack
    source.add(Heartbeat())
    app._pump()


async def test_help_lists_every_action_with_its_reason(dashboard: Dashboard) -> None:
    async with dashboard(training_run(), NoControl(lambda: ("view only", Presence.UNKNOWN))) as (app, pilot):
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        text = screen_text(app)
        assert "view only" in text
        await pilot.press("end")
        await settle(pilot, partial(shows, app, PAGES[-1].help), "the last lines")
        text += screen_text(app)
        helps = [*(action.help for action in ACTIONS), *(page.help for page in PAGES)]
        assert all(words[:20] in text for words in helps)
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpScreen)


async def test_the_help_screen_is_reused_and_up_to_date_at_every_opening(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source) as (app, pilot):
        app._prepare_help()
        await pilot.press("question_mark", "end")
        await see(pilot, PAGES[-1].help)
        help_screen, dark = app.screen, app.screen.query_one(".dialog").styles.background
        await pilot.press("escape")
        app.keys.help_screen.explain({})
        assert help_screen.query_one("#help-keys").scroll_y == 0, "the first frame begins at the top"
        source.add(Finished(reason="completed", step=300, epoch=3.0, exit_code=0))
        await see(pilot, "● finished ")
        await pilot.resize_terminal(60, 24)
        app.theme = "r18-light"
        await pilot.press("question_mark")
        await see(pilot, "esc closes")
        assert app.screen is help_screen
        await see(pilot, "Pause at the next step")  # scrolled back to the top
        await see(pilot, "Not now: not while")
        assert help_screen.query_one(".dialog").styles.background != dark
        await pilot.resize_terminal(120, 40)
        await see(pilot, "Not now: not while the run is finished")


async def test_log_scale_smoothing_zoom_and_focus(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("y")
        assert app.current.scene.log_scale
        await pilot.press("s", "s")
        assert app.current.scene.smoothing == 0.0
        await pilot.press("tab", "tab", "enter")
        await pilot.pause(0.3)
        assert "Loss" not in screen_text(app)
        await see(pilot, "Accuracy")
        await pilot.press("enter")
        await pilot.pause(0.3)
        await see(pilot, "Loss")


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


@pytest.mark.parametrize(("theme", "train"), [("dark", "#5fb3f9"), ("light", "#005fb8"), ("ansi", "color(12)")])
async def test_a_theme_sets_the_colours_of_panes(tmp_path: Path, theme: str, train: str) -> None:
    port = RunPort(run_dir=RunDir(tmp_path), source=training_run(), control=Recorder())
    app = DashboardApp(port, UiSettings(theme=theme), clock=lambda: START + 30)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.5)
        styles = [segment.style for segment in app.query_one(LossPane).render_line(0)]
    colours = {style.color.name for style in styles if style and style.color}
    assert train in colours


async def test_figures_that_do_not_fit_are_dropped_as_a_whole(dashboard: Dashboard) -> None:
    text = await shown(dashboard, training_run(), size=(80, 24))
    assert "best" in text
    titles = [line for line in text.splitlines() if "╭" in line]
    assert len(titles) == 1
    assert "…" not in titles[0]


async def test_no_color_and_ansi_draw_without_a_crash(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = await shown(dashboard, training_run())
    assert "Per-class" in text


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
