"""Zooming, panning and reading the curves at a step."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.canned import CannedSource, evaluated, opened, started, steps, training_run
from tests.support.screen import App, Dashboard, screen_text, see, settle, shows
from trainer.run.log.event import Record
from trainer.run.log.run_events import Resumed
from trainer.run.view.fold import apply
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.drawing.glyphs import ASCII
from tui.drawing.step_axis import step_labels
from tui.state.viewport import Viewport
from tui.widgets.step_pane import StepPane


def test_zooming_keeps_the_step_in_place() -> None:
    view = Viewport()
    view.zoom(0.5, around=250.0, total=1000.0)
    assert view.edges(1000.0) == (125.0, 625.0)
    view.zoom(0.5, around=250.0, total=1000.0)
    assert view.edges(1000.0) == (187.5, 437.5)
    view.zoom(4.0, around=250.0, total=1000.0)
    assert view.span is None, "all steps again"


def test_no_fewer_than_ten_steps_are_shown() -> None:
    view = Viewport()
    for _ in range(20):
        view.zoom(0.5, around=999.0, total=1000.0)
    left, right = view.edges(1000.0)
    assert right - left == pytest.approx(10.0)
    short = Viewport()
    short.zoom(0.5, around=1.0, total=4.0)
    assert short.edges(4.0) == (0.0, 4.0)


def test_panning_stops_at_both_ends() -> None:
    view = Viewport(span=(400.0, 600.0))
    view.pan(0.25, 1000.0)
    assert view.span == (450.0, 650.0)
    view.pan(9.0, 1000.0)
    assert view.span == (800.0, 1000.0)
    view.pan(-9.0, 1000.0)
    assert view.span == (0.0, 200.0)


def test_the_cursor_starts_at_the_newest_step_and_disappears_there() -> None:
    view = Viewport()
    view.move_cursor(-10.0, newest=300.0, total=1000.0)
    assert view.cursor == 290.0
    view.move_cursor(-1000.0, newest=300.0, total=1000.0)
    assert view.cursor == 1.0
    view.move_cursor(1000.0, newest=300.0, total=1000.0)
    assert view.cursor is None


def test_the_visible_part_follows_the_cursor() -> None:
    view = Viewport(span=(280.0, 320.0))
    view.move_cursor(-30.0, newest=300.0, total=1000.0)
    assert (view.cursor, view.span) == (270.0, (250.0, 290.0))


def test_there_is_no_cursor_before_the_first_step() -> None:
    view = Viewport()
    view.move_cursor(-5.0, newest=0.0, total=1000.0)
    assert view.cursor is None


def test_a_rollback_moves_the_cursor_and_the_visible_part() -> None:
    view = Viewport(span=(600.0, 1000.0), cursor=290.0)
    view.keep_within(newest=300.0, total=1000.0)
    assert (view.cursor, view.edges(1000.0)) == (290.0, (600.0, 1000.0))
    view.keep_within(newest=100.0, total=500.0)
    assert (view.cursor, view.edges(500.0)) == (None, (100.0, 500.0))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("zoom"), st.floats(0.1, 8.0), st.floats(0.0, 1.0)),
            st.tuples(st.just("pan"), st.floats(-3.0, 3.0), st.just(0.0)),
            st.tuples(st.just("cursor"), st.floats(-500.0, 500.0), st.floats(0.0, 1.0)),
        ),
        max_size=30,
    ),
    st.integers(1, 10_000),
    st.sampled_from([0.0, 0.6, 1.0]),
)
def test_only_steps_of_the_run_are_shown(moves: list[tuple[str, float, float]], total: int, done: float) -> None:
    view, newest = Viewport(), float(int(total * done))
    for kind, amount, share in moves:
        if kind == "zoom":
            view.zoom(amount, share * total, float(total))
        elif kind == "pan":
            view.pan(amount, float(total))
        else:
            view.move_cursor(amount, newest, float(total))
            left, right = view.edges(float(total))
            assert left - 1e-6 <= (newest if view.cursor is None else view.cursor) <= right + 1e-6
        left, right = view.edges(float(total))
        assert -1e-6 <= left < right <= total + 1e-6
        assert right - left >= min(10.0, total) - 1e-6


def view_of_run() -> RunView:
    view = RunView()
    replay(view, CannedSource(opened(), started(), steps(1)).read())
    return view


@pytest.mark.parametrize(
    ("left", "right", "width", "axis", "labels"),
    [
        (0.0, 1000.0, 50, "epoch", ["epoch 0", "2", "4", "6", "8", "10"]),
        (0.0, 1000.0, 50, "step", ["step 0", "250", "500", "750", "1,000"]),
        (130.0, 870.0, 100, "epoch", ["epoch 2", "3", "4", "5", "6", "7", "8"]),
        (130.0, 170.0, 60, "epoch", ["step 130", "140", "150", "160", "170"]),
        (999.5, 1000.0, 10, "step", ["step 1,000"]),
    ],
)
def test_labels_are_round_and_the_first_has_its_unit(
    left: float, right: float, width: int, axis: str, labels: list[str]
) -> None:
    placed = step_labels(view_of_run(), left, right, width, axis=axis)
    assert [text for _, text in placed] == labels
    assert all(left - 1e-6 <= position <= right + 1e-6 for position, _ in placed)


def test_time_includes_absences_and_is_extrapolated() -> None:
    view = RunView()
    log = [opened(), started(), *(steps(first, 50) for first in range(1, 401, 50))]
    for seq, event in enumerate(log):
        absent = 600.0 if seq > 5 else 0.0  # from step 200 on
        apply(view, Record(seq=seq, time=1000.0 + 10 * seq + absent, event=event))
    assert view.elapsed_at(0.0) == 0.0
    assert view.elapsed_at(100.0) == 20.0
    assert view.elapsed_at(400.0) == 680.0
    assert view.elapsed_at(500.0) == pytest.approx(680.0 + 100 * 0.01), "at the pace of the last steps"
    labels = step_labels(view, 0.0, 400.0, 60, axis="time")
    assert [text for _, text in labels] == ["time 0:00", "5:00", "10:00"]
    assert [round(step) for step, _ in labels] == [0, 221, 246]


async def test_the_cursor_shows_the_raw_value_beside_the_smoothed_one(dashboard: Dashboard) -> None:
    async with dashboard(training_run(), size=(120, 40)) as (app, pilot):
        assert "raw " not in screen_text(app)
        await pilot.press(",")
        await settle(pilot, lambda: "raw " in screen_text(app), "the raw value")
        await pilot.press("t", "t")
        await settle(pilot, lambda: "time 0:00" in screen_text(app), "the axis of time")


def shown_steps(app: App) -> tuple[float, float]:
    scene = app[0].current.scene
    return scene.viewport.edges(scene.total)


async def test_keys_zoom_pan_and_reset(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as app:
        _, pilot = app
        await pilot.press("plus", "plus")
        assert shown_steps(app) == (225.0, 475.0), "around the newest of 300 steps"
        await settle(pilot, partial(shows, app[0], "epoch 3"), "the labels of the zoomed part")
        await pilot.press("less_than_sign")
        assert shown_steps(app) == (162.5, 412.5)
        await pilot.press("minus", "minus", "minus")
        assert shown_steps(app) == (0.0, 1000.0)
        await pilot.press("plus", "escape")
        assert shown_steps(app) == (0.0, 1000.0)


async def test_the_cursor_reads_all_curves_at_a_step(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        app.current.scene.smoothing = 0.0
        await pilot.press(*["comma"] * 4)
        cursor = app.current.scene.viewport.cursor
        assert cursor is not None
        step = int(cursor)
        await settle(pilot, partial(shows, app, f"at {cursor / 100:.2f}"), "the place")
        text = screen_text(app)
        event = steps(1, 300)
        loss, accuracy = event.loss[step - 1], event.accuracy[step - 1]
        assert loss is not None
        assert f"train {loss:.3f}  test 0.667" in text, "the evaluation before the cursor"
        assert f"train {100 * accuracy:.1f}  test 30.0" in text
        assert f" {event.lr[step - 1]:.3g} " in text
        rows = app.screen.query_one("#loss", StepPane).rows_for(app.current.scene, 60, 20)
        assert sum(("│", "accent") in row for row in rows) > 8, "a line from top to bottom, behind the curve"
        await pilot.press("t")
        await settle(pilot, partial(shows, app, f"at {step}"), "the same in steps")
        await pilot.press(*["full_stop"] * 5)
        assert app.current.scene.viewport.cursor is None
        await settle(pilot, partial(shows, app, "best 40.0"), "the newest values")


async def test_the_cursor_shows_no_evaluation_before_the_first(dashboard: Dashboard) -> None:
    async with dashboard(CannedSource(opened(), started(), steps(1), evaluated(1), steps(101))) as (app, pilot):
        app.current.scene.viewport.cursor = 50.0
        app.current.screen.redraw_step_panes()
        await settle(pilot, partial(shows, app, "at 0.50"), "the cursor")
        assert "test" not in "".join(line for line in screen_text(app).splitlines() if "1 Loss" in line)


async def test_arrows_move_the_cursor_on_a_page_and_the_focus_in_the_overview(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("tab", "right")
        assert app.current.scene.viewport.cursor is None
        assert app.screen.focused is app.screen.query_one("#accuracy")
        await pilot.press("1", "left")
        assert app.current.scene.viewport.cursor is not None


async def test_the_wheel_zooms_at_the_pointer_and_a_click_sets_the_cursor(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as app:
        _, pilot = app
        pane = app[0].screen.query_one("#loss", StepPane)
        await pilot.click(pane, offset=(20, 5))
        cursor = app[0].current.scene.viewport.cursor
        assert cursor is not None
        assert 200 < cursor < 300
        await pilot._post_mouse_events([_scroll()], pane, offset=(20, 5))
        left, right = shown_steps(app)
        assert right - left == pytest.approx(1000 / 1.5)
        assert left < cursor < right
        await pilot.click(pane, offset=(50, 5))
        assert app[0].current.scene.viewport.cursor is None, "right of the newest step"


def _scroll() -> type:
    from textual.events import MouseScrollUp

    return MouseScrollUp


async def test_a_rollback_of_the_run_removes_the_cursor(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source) as (app, pilot):
        await pilot.press("comma")
        assert app.current.scene.viewport.cursor is not None
        source.add(Resumed(step=100, epoch=1, checkpoint="step-00000100", lr_edits=[]), steps(101, 10))
        await settle(pilot, partial(shows, app, "step 110/"), "the current step")
        assert app.current.scene.viewport.cursor is None


async def test_keys_of_curves_do_nothing_without_curves(dashboard: Dashboard) -> None:
    async with dashboard(training_run(), size=(40, 12)) as (app, pilot):
        await pilot.press("comma", "plus", "less_than_sign")
        assert app.current.scene.viewport == Viewport()
        await see(pilot, "1.043")


@pytest.mark.parametrize("span", [(0.0, 300.0), (100.0, 250.0)])
async def test_a_part_with_perfect_accuracy_can_be_shown(dashboard: Dashboard, span: tuple[float, float]) -> None:
    perfect = dataclasses.replace(steps(1, 300), accuracy=[1.0] * 300)
    async with dashboard(CannedSource(opened(), started(), perfect)) as (app, pilot):
        app.current.scene.viewport.span = span
        app.current.screen.redraw_step_panes()
        await settle(pilot, partial(shows, app, "90 ┤"), "a range below it")
        assert app.crash is None


async def test_the_cursor_is_drawn_with_the_terminals_characters(dashboard: Dashboard) -> None:
    async with dashboard(training_run()) as (app, pilot):
        app.current.scene.glyphs = ASCII
        await pilot.press("comma", "comma")
        app.current.screen.draw_now()
        await settle(pilot, lambda: "│" not in screen_text(app), "ASCII alone")
