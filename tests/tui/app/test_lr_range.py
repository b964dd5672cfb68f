"""The learning rate range test on the screen and as a command."""

from __future__ import annotations

import math
import re

import pytest

from tests.support.canned import Recorder, training_run
from tests.support.screen import Dashboard, settle, shows
from tests.tui.conftest import HandClock
from trainer.config.loader import load_config
from trainer.run.control import commands as cmd
from trainer.run.log.result_events import LrRangeTested
from trainer.run.log.run_events import Acknowledged
from tui.app.screens.held_key_guard import READING_DELAY_S
from tui.app.screens.lr_range import LrRangeScreen
from tui.cli import main
from tui.drawing.lr_range_plot import lr_range_plot

LRS = [1e-5 * 10 ** (6 * n / 59) for n in range(60)]
LOSSES = [2.0 - 1.5 / (1 + math.exp(-4 * (math.log10(lr) + 2))) for lr in LRS]


def range_tested(suggestion: float | None = 0.01) -> LrRangeTested:
    return LrRangeTested(
        step=100, lrs=LRS, losses=LOSSES, suggestion=suggestion, reason="the loss falls fastest at about 0.01"
    )


def test_the_curve_fits_its_space() -> None:
    pytest.importorskip("plotext")
    lines = lr_range_plot(LRS, [*LOSSES[:-1], 900.0], 60, 14).splitlines()
    assert 10 <= len(lines) <= 15
    assert max(map(len, lines)) <= 60
    assert "900" not in "".join(lines), "an exploding loss does not flatten the rest"
    assert lr_range_plot([0.1], [1.0], 60, 14) == ""


async def test_one_key_applies_the_suggestion(dashboard: Dashboard, key_clock: HandClock) -> None:
    source, control = training_run(), Recorder()
    async with dashboard(source, control) as (app, pilot):
        await pilot.press("f")
        (command,) = control.sent
        assert isinstance(command, cmd.FindLr)
        source.add(Acknowledged(command_id=command.command_id, command=command.name, ok=True), range_tested())
        await settle(pilot, lambda: isinstance(app.screen, LrRangeScreen), "the curve")
        await settle(pilot, lambda: shows(app, "the loss falls fastest at about 0.01"), "the reason")
        await pilot.press("enter")  # too early: may have been meant for the dashboard
        assert len(control.sent) == 1
        key_clock.now += READING_DELAY_S
        await pilot.press("enter")
        await settle(pilot, lambda: len(control.sent) == 2, "the rate")
        assert isinstance(control.sent[1], cmd.SetLr)
        assert control.sent[1].lr == 0.01


async def test_enter_does_nothing_without_a_suggestion(dashboard: Dashboard, key_clock: HandClock) -> None:
    source, control = training_run(), Recorder()
    async with dashboard(source, control) as (app, pilot):
        await pilot.press("f")
        source.add(range_tested(None))
        await settle(pilot, lambda: isinstance(app.screen, LrRangeScreen), "the curve")
        key_clock.now += READING_DELAY_S
        await pilot.press("enter")
        assert isinstance(app.screen, LrRangeScreen)
        await pilot.press("escape")
        await settle(pilot, lambda: not isinstance(app.screen, LrRangeScreen), "the dashboard")
        assert len(control.sent) == 1


async def test_a_result_of_another_viewers_test_opens_no_screen(dashboard: Dashboard) -> None:
    source = training_run()
    async with dashboard(source, Recorder()) as (app, pilot):
        source.add(range_tested())
        await settle(pilot, lambda: shows(app, "learning rates tried"), "a message")
        assert not isinstance(app.screen, LrRangeScreen)


@pytest.mark.usefixtures("narrow_network")
def test_the_command_prints_curve_and_suggestion(
    capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    small = (
        "data.image_size=16", "data.batch_size=16", "run.precision=fp32", "run.channels_last=true", "run.device=cpu",
    )  # fmt: skip
    assert load_config("digits", small).config.data.image_size == 16
    assert main(["find-lr", "digits", *small, "run.convolution=native"]) == 0
    printed = capsys.readouterr().out
    assert "loss against the learning rate, on a logarithmic axis" in printed
    assert re.search(r"1e-05 .*0\.01 .*0\.1", printed), "the axis is labelled with rates, not exponents"
    assert "train with it: r18-tui digits data.image_size=16" in printed
    assert main(["find-lr", "nowhere"]) == 2
