"""The dialogs for a run's plan and its learning rate."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.canned import Recorder, training_run
from tests.support.screen import Dashboard, screen_text, see, settle, shows
from trainer.run.control import commands as cmd
from trainer.run.log.run_events import Acknowledged, LrEdited, SettingsChanged
from tui.app.screens.dialogs import typed_rate


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_a_typed_plan_is_checked_and_sent(dashboard: Dashboard, size: tuple[int, int]) -> None:
    control = Recorder()
    async with dashboard(training_run(), control, size=size) as (app, pilot):
        await pilot.press("a")
        await settle(pilot, partial(shows, app, "Training plan"), "the dialog")
        await see(pilot, "enter sets them")  # the dialog fits as a whole
        await pilot.press("home", "delete", "delete", "2", "enter")
        await settle(pilot, partial(shows, app, "train for: at least 4 epochs"), "the reason")
        await pilot.press("5", "tab", "tab", "end", ".", "5", "enter")
        await settle(pilot, lambda: not shows(app, "Training plan"), "the dashboard")
    assert [command.settings for command in control.sent if isinstance(command, cmd.ChangeSettings)] == [
        {"train.epochs": 25, "checkpoint.every_s": 60.5}
    ]


async def test_an_unchanged_plan_sends_nothing(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        for key in ("enter", "escape"):
            await pilot.press("a")
            await settle(pilot, partial(shows, app, "Training plan"), "the dialog")
            await pilot.press(key)
            await settle(pilot, lambda: not shows(app, "Training plan"), "the dashboard")
    assert control.sent == []


async def test_an_extended_run_shows_its_new_length(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source) as (app, pilot):
        source.add(
            SettingsChanged(
                step=300, changes=["train.epochs 10 -> 20"], config={"train": {"epochs": 20}, "eval": {"every_epochs": 4}},
                epochs=20, total_steps=2000, planned_lr=[[1.0, 2000.0], [0.2, 0.0]],
            )
        )  # fmt: skip
        await settle(pilot, partial(shows, app, "epoch 3/20"), "the header")
        await see(pilot, "from step 301: train.epochs 10 -> 20")
        assert app.current.view.plan == {"train.epochs": 20, "eval.every_epochs": 4, "checkpoint.every_s": 60}


@pytest.mark.parametrize(
    ("text", "rate"),
    [("0.01", 0.01), ("x0.5", 0.02), ("X2", 0.08), (" 1e-3 ", 0.001), ("0", None), ("x", None), ("0.5x", None), ("nan", None),
     ("-1", None), ("1e9", None)],
)  # fmt: skip
def test_a_rate_is_a_number_or_a_factor(text: str, rate: float | None) -> None:
    result, _ = typed_rate(text, 0.04)
    assert result is None if rate is None else result == pytest.approx(rate)


async def test_the_rate_dialog_shows_the_new_rate_and_warns_of_large_changes(dashboard: Dashboard) -> None:
    control = Recorder()
    async with dashboard(training_run(), control) as (app, pilot):
        await pilot.press("l", "x", "5")
        await settle(pilot, partial(shows, app, "can ruin the weights"), "a warning")
        await pilot.press("backspace", "0", ".", "5")
        await settle(pilot, partial(shows, app, "0.14 becomes 0.07 (x0.5)"), "the new rate")
        assert "can ruin" not in screen_text(app)
        await pilot.press("enter")
        await settle(pilot, lambda: bool(control.sent), "it is sent")
    assert [(type(command), getattr(command, "factor", None)) for command in control.sent] == [(cmd.ScaleLr, 0.5)]


async def test_edits_of_the_rate_are_undone_one_after_the_other(dashboard: Dashboard) -> None:
    control, source = Recorder(), training_run()
    source.add(LrEdited(step=300, factor=0.5, lr=0.07), LrEdited(step=300, factor=0.1, lr=0.007))
    async with dashboard(source, control) as (app, pilot):
        for factor, now, before in ((0.1, 0.007, 0.07), (0.5, 0.07, 0.14)):
            await pilot.press("l")
            await settle(
                pilot, partial(shows, app, f"ctrl+z undoes the last edit (x{factor}): {before:.2g}"), "the hint"
            )
            await see(pilot, f"▊  {now:.2g}")  # the rate of the next step
            await pilot.press("ctrl+z")
            await pilot.pause()
            undone = [command.factor for command in control.sent if isinstance(command, cmd.ScaleLr)][-1]
            assert undone == pytest.approx(1 / factor)
            sent = control.sent[-1]
            source.add(
                LrEdited(step=300, factor=undone, lr=before),
                Acknowledged(command=sent.name, command_id=sent.command_id, ok=True),
            )
            await settle(pilot, lambda lr=before: app.current.view.next_lr == pytest.approx(lr, rel=0.01), "the answer")  # type: ignore[misc]
        await pilot.press("l")
        await settle(pilot, partial(shows, app, "enter sets it, esc cancels"), "nothing to undo")
        await pilot.press("ctrl+z", "escape")
        await pilot.pause()
    assert len(control.sent) == 2
