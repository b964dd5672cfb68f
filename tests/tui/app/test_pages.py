"""Pages: one pane in full, opened by the key in its title."""

from __future__ import annotations

import dataclasses
import re
from functools import partial

import pytest

from tests.support.canned import CannedSource, Recorder, evaluated, layers, opened, started, steps, training_run
from tests.support.screen import Dashboard, screen_text, see, settle, shown, shows
from trainer.run.log.run_events import Failed, StagesFrozen
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.drawing.themes import STYLES, THEMES, palette
from tui.state.class_results import recalls
from tui.state.pages import OVERVIEW, PAGES
from tui.widgets.pane import Pane

IN_FULL = {
    "loss": "smoothed 0.9", "accuracy": "best, chosen on test", "lr": "● now", "memory": "CPU 97 %", "classes": "precision",
    "confusion": "worst pairs", "mistakes": "none kept yet", "training": "none kept yet", "network": "A residual block",
    "layers": "|grad|",
}  # fmt: skip


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (100, 28)])
async def test_every_page_has_a_key_that_also_leads_back(dashboard: Dashboard, size: tuple[int, int]) -> None:
    async with dashboard(training_run(), size=size) as (app, pilot):
        for page in PAGES[1:]:
            await pilot.press(page.key)
            await settle(pilot, partial(shows, app, IN_FULL[page.name]), f"page {page.name}")
            text = screen_text(app)
            assert re.search(rf"╭ {page.key} ", text), "the title shows the key"
            assert text.count("╭") == 1, "no other pane"
            assert f"{OVERVIEW.key} overview" in text
            await pilot.press(page.key)
            await settle(pilot, partial(shows, app, "Per-class"), "the overview")


async def test_escape_leads_back_and_tab_to_the_next_page(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("6")
        await settle(pilot, partial(shows, app, "6 Confusion"), "the page")
        await pilot.press("tab", "tab", "tab")
        await settle(pilot, partial(shows, app, "9 Network"), "three pages on")
        await pilot.press("tab", "tab")
        await settle(pilot, partial(shows, app, "1 Loss"), "the first one")
        await pilot.press(*["shift+tab"] * 5)
        await settle(pilot, partial(shows, app, "6 Confusion"), "five pages back")
        await pilot.press("escape")
        await settle(pilot, partial(shows, app, "Learning rate"), "the overview")


async def test_the_border_of_a_page_names_the_other_pages_or_their_keys(dashboard: Dashboard) -> None:
    names = [f"{page.key} {page.label}" for page in PAGES if page.name != "network"]
    async with dashboard(training_run(), size=(140, 40)) as (app, pilot):
        await pilot.press("9")
        await settle(pilot, partial(shows, app, "A residual block"), "the page")
        border = screen_text(app).splitlines()[-2]
        assert "  ".join(names) in border
        await pilot.resize_terminal(80, 24)
        await settle(pilot, lambda: len(screen_text(app).splitlines()) == 24, "the smaller screen")
        await settle(pilot, partial(shows, app, "0 overview  tab next page"), "the keys")


async def test_the_overview_names_every_page(dashboard: Dashboard) -> None:
    text = await shown(dashboard, training_run())
    for page in PAGES[1:]:
        assert re.search(rf"[╭ ] ?{page.key} \w", text), page.name


async def test_titles_in_the_overview_show_the_keys_of_pages(dashboard: Dashboard) -> None:
    text = await shown(dashboard, training_run())
    for title in ("1 Loss", "2 Accuracy", "3 Learning rate", "4 Memory", "5 Per-class test accuracy", "6 confusion"):
        assert title in text
    assert "5 Per-class" in await shown(dashboard, training_run(), size=(80, 24))


async def test_enter_on_a_pane_shows_its_page(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        app.current.screen.query_one("#classes", Pane).focus()
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "5 Classes on test"), "the page")


async def test_a_page_stays_after_a_resize(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("6")
        for size in ((80, 24), (40, 12), (120, 40)):
            await pilot.resize_terminal(*size)
            await settle(pilot, partial(shows, app, "6 Confusion"), f"the page at {size}")
            await pilot.pause(0.2)
            assert app.screen.query_one("#page-confusion").size.height == size[1] - 3, "all but header and keys"
        await pilot.resize_terminal(20, 5)
        await settle(pilot, partial(shows, app, "too small"), "the message")


async def test_a_page_of_a_failed_run_fills_the_screen(dashboard: Dashboard) -> None:
    source = training_run()
    source.add(Failed(error="no memory", exit_code=1))
    async with dashboard(source, size=(80, 24)) as (app, pilot):
        await pilot.press("5")
        await settle(pilot, partial(shows, app, "5 Classes on test"), "the page")
        assert app.screen.query_one("#page-classes").size.height == 21


async def test_confusions_that_were_not_logged_are_not_shown_as_zero(dashboard: Dashboard) -> None:
    classes = [f"{chr(97 + label)}-class" for label in range(14)]
    counts = [number for other in range(1, 11) for number in (other, 5)]
    truncated = dataclasses.replace(
        evaluated(1, 14), correct=[40, *[100] * 13], confusions=[counts, *([] for _ in range(13))]
    )
    source = CannedSource(opened(), started(classes), steps(1), truncated)
    async with dashboard(source) as (app, pilot):
        await pilot.press("6")
        await settle(pilot, partial(shows, app, "worst pairs"), "the page")
        rows = [line for line in screen_text(app).splitlines() if "-class " in line]
        assert rows[0].count("?") == 3, "ten more images whose predictions were not logged"
        assert "?" not in rows[1]


async def test_keys_act_on_the_run_while_a_page_is_shown(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("5", "p")
        assert [command.name for command in control.sent] == ["pause"]
        await settle(pilot, partial(shows, app, "● pausing"), "the answer to the key")


async def test_a_page_follows_the_run(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source) as (app, pilot):
        await pilot.press("5")
        await settle(pilot, partial(shows, app, "epoch 3"), "the newest evaluation")
        source.add(steps(301), evaluated(4))
        await settle(pilot, partial(shows, app, "epoch 4"), "the one after it")


async def test_the_class_page_has_all_figures_of_a_class(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("5")
        await settle(pilot, partial(shows, app, "precision"), "the page")
        row = next(line for line in screen_text(app).splitlines() if "│ airplane" in line)
    # 30 of 100; Wilson's 95 % interval; 30 of 30 + 34 (from the last class) + 18 (from the one before) predictions.
    for figure in ("30.0", "▴10.0", "21.9-39.6", "36.6", "100", "[red]cat[/] 47.0"):
        assert figure in row, f"{figure} is missing in {row}"
    assert any(tick in row for tick in "▁█"), "the trend"


async def test_the_weights_page_has_all_figures_of_a_layer_and_follows_the_cursor(dashboard: Dashboard) -> None:
    source = training_run()
    last = dataclasses.replace(evaluated(4), silent={"layer1.0.conv1": 0.95, "layer1.0.conv2": 0.002})
    source.add(steps(301), layers(4, frozen=1), last)
    async with dashboard(source) as (app, pilot):
        await pilot.press("w")
        await settle(pilot, partial(shows, app, "layer4.1.conv2"), "the page")
        table = [line.removeprefix("│ ● ").removeprefix("│   ") for line in screen_text(app).splitlines()[3:23]]
        rows = {line.split()[0]: line for line in table}
        await see(pilot, "epoch 4")
        assert "frozen" in rows["conv1"]
        # 0.5 times the epoch; a peak in the middle; 95 % and 0.2 % of its channels.
        for figure in ("12.00", "0.08", "▁▁▂██▂▁▁", "95 %"):
            assert figure in rows["layer1.0.conv1"], f"{figure} is missing in {rows['layer1.0.conv1']}"
        assert "< 1 %" in rows["layer1.0.conv2"]
        assert "0 %" in rows["layer4.1.conv2"]
        assert "%" not in rows["fc"], "no ReLU follows it"
        await pilot.press(",", ",")
        await settle(pilot, partial(shows, app, "epoch 2"), "the earlier epoch")


async def test_the_weights_page_shows_all_epochs_of_the_selected_layer(dashboard: Dashboard) -> None:
    source = training_run()
    source.add(layers(4, frozen=1))
    async with dashboard(source) as (app, pilot):
        await pilot.press("w")
        await settle(pilot, partial(shows, app, "36,864 weights of conv1, epochs 1 to 4"), "the first layer")
        await pilot.press("down", "down")
        await settle(pilot, partial(shows, app, "gradients of layer1.0.conv2"), "the third one")
        await see(pilot, "│ ● layer1.0.conv2")
        await pilot.press("end")
        await settle(pilot, partial(shows, app, "│ ● fc"), "the last one")
        await pilot.click("#page-layers", offset=(10, 2))
        await settle(pilot, partial(shows, app, "│ ● conv1"), "the clicked layer")
        await pilot.click("#page-layers", offset=(10, 30))
        await pilot.pause(0.2)
        await see(pilot, "│ ● conv1")  # not in the table
        await pilot.resize_terminal(80, 24)
        await settle(pilot, partial(shows, app, "1-8 of 18"), "fewer layers")
        await pilot.press("pagedown")
        await settle(pilot, partial(shows, app, "│ ● layer2.1.conv2"), "eight layers on")
        await see(pilot, "2-9 of 18")


async def test_many_classes_can_be_scrolled(dashboard: Dashboard) -> None:
    classes = [f"class {label}" for label in range(100)]
    async with dashboard(training_run(classes=classes), size=(80, 24)) as (app, pilot):
        await pilot.press("5")
        await settle(pilot, partial(shows, app, "1-18 of 100"), "the first of them")
        await pilot.press("end")
        await settle(pilot, partial(shows, app, "83-100 of 100"), "the last of them")
        await see(pilot, "class 99")
        await pilot.press("up", "pageup")
        await settle(pilot, partial(shows, app, "64-81 of 100"), "one row and one page up")


async def test_the_matrix_shows_counts_and_numbers_for_similar_names(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("6")
        await settle(pilot, partial(shows, app, "worst pairs"), "the page")
        text = screen_text(app)
        assert re.search(r"air \[re +ev\? dog +漢", text), text
        assert re.search(r"│ airplane +30  47  23   \.   \. ", text), text
        assert re.search(r"airplane predicted as \[red\]cat\[/\] +47 +47.0 %", text), text
        assert "300 mistakes in 500" in text
    alike = training_run(classes=[f"class {label}" for label in range(12)])
    async with dashboard(alike) as (app, pilot):
        await pilot.press("6")
        await settle(pilot, partial(shows, app, "worst pairs"), "the page")
        assert re.search(r" 0   1   2   3 .* 11 ", screen_text(app))
        await see(pilot, "│ 0 class 0")


async def test_the_matrix_shows_the_most_confused_of_many_classes(dashboard: Dashboard) -> None:
    source = training_run(classes=[f"class {label}" for label in range(100)])
    async with dashboard(source, size=(80, 24)) as (app, pilot):
        await pilot.press("6")
        await settle(pilot, partial(shows, app, "of 100 classes"), "the page")
        await see(pilot, "│ 0 class 0")
        assert "99 class 99" not in screen_text(app)


async def test_a_log_without_confusions_is_explained(dashboard: Dashboard) -> None:
    old = dataclasses.replace(evaluated(1), confusions=[], predicted=[])
    async with dashboard(CannedSource(opened(), started(), steps(1), old)) as (app, pilot):
        await pilot.press("6")
        await settle(pilot, partial(shows, app, "this log predates confusions"), "the reason")
        await pilot.press("5")
        await settle(pilot, partial(shows, app, "precision"), "what is known")


async def test_empty_pages_show_what_they_wait_for(dashboard: Dashboard) -> None:
    async with dashboard(CannedSource(opened())) as (app, pilot):
        waits = dict.fromkeys("567", "first evaluation after") | dict.fromkeys("89", "appears when")
        for key, text in waits.items():
            await pilot.press(key)
            await settle(pilot, partial(shows, app, text), f"page {key}")


async def test_the_network_page_shows_frozen_stages(dashboard: Dashboard) -> None:
    source = training_run()
    source.add(StagesFrozen(step=300, stages=["stem", "layer1"], trainable=11_024_138))
    async with dashboard(source) as (app, pilot):
        await pilot.press("9")
        await settle(pilot, partial(shows, app, "layer1 (frozen)"), "the stage")
        text = screen_text(app)
        for part in ("11.0 M trained", "64 x 32 x 32", "512 x 4 x 4", "8,393,728", "0.56 G multiply-adds"):
            assert part in text


async def test_a_problem_is_shown_above_the_events_with_its_remedy(dashboard: Dashboard) -> None:
    for size, rest in (((120, 40), "33% of step time.  more data.workers"), ((80, 24), "more data.workers")):
        source = training_run()
        source.add(dataclasses.replace(steps(301), budget={"data": 31.0, "compute": 150.0}))
        text = await shown(dashboard, source, size=size)
        assert f"▲ training waits for data: {rest}" in text
    assert "▲" not in await shown(dashboard, training_run())


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: str(theme.name))
@pytest.mark.parametrize("no_color", [False, True])
def test_every_word_has_a_style_under_every_theme(
    theme: object, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    variables = {"background": "#000000", "foreground": "#ffffff", **theme.variables}  # type: ignore[attr-defined]
    styles = palette(variables)
    assert set(STYLES) < set(styles)
    heat = [styles[f"heat{level}"] for level in (1, 2, 3, 4)]
    assert len({str(style) for style in heat}) == 4, "distinguishable"
    assert any(style.bgcolor != styles["text"].bgcolor for style in heat) is not no_color


def test_a_class_without_images_at_an_evaluation_has_a_gap_in_its_trend() -> None:
    view = RunView()
    source = CannedSource(
        opened(), started(), evaluated(1), dataclasses.replace(evaluated(2), counts=[0] * 5), evaluated(3)
    )
    replay(view, source.read())
    assert recalls(view, 0, most=8) == [0.1, 0.3]
    assert recalls(view, 0, most=1) == [0.3]
