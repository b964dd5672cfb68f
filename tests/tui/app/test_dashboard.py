"""The dashboard over canned runs: its contents, the commands of its keys, and refusals."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from tests.support.canned import (
    START,
    CannedSource,
    Recorder,
    evaluated,
    opened,
    started,
    steps,
    training_run,
)
from tests.support.screen import Dashboard, screen_text, see, settle, shown, shows
from trainer.run.control.commands import NoControl
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Finished, Heartbeat, StateChanged
from trainer.run.status import Presence
from tui.app.app import DashboardApp
from tui.app.screens.dashboard import layout_for
from tui.app.screens.dialogs import HelpScreen
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
