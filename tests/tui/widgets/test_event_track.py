"""Events of a run below its curves: a letter per kind, explained in the border."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.canned import CannedSource, opened, started, steps
from tests.support.screen import Dashboard, screen_text, settle, shown, shows
from trainer.run.log.event import Event
from trainer.run.log.result_events import CheckpointSaved
from trainer.run.log.run_events import LrEdited, NoteAdded


def saved(step: int) -> CheckpointSaved:
    return CheckpointSaved(
        step=step, path=f"step-{step}", size_bytes=1, sha256="", pinned=True, best=False, seconds=0.1
    )


def noted(step: int) -> NoteAdded:
    return NoteAdded(step=step, text="looks good")


def edited(step: int) -> LrEdited:
    return LrEdited(step=step, factor=0.5, lr=0.05)


def track(text: str) -> str:
    """The axis of the loss curve."""
    return next(line for line in text.splitlines() if "└" in line)[: len(text.splitlines()[0]) // 2]


async def test_each_kind_has_a_letter_that_the_border_explains(dashboard: Dashboard) -> None:
    source = CannedSource(opened(), started(), steps(1, 400), saved(50), noted(150), edited(250), saved(350))
    text = await shown(dashboard, source, size=(200, 60))
    assert [sign for sign in track(text) if sign in "▴nl*"] == ["▴", "n", "l", "▴"]
    for explained in ("n note", "l LR set", "▴ saved"):
        assert explained in text
    assert "p paused" not in text, "the run was not paused"


@pytest.mark.parametrize(
    ("events", "sign"),
    [
        ([saved(100), noted(100)], "n"),
        ([noted(100), saved(100)], "n"),
        ([noted(100), noted(100)], "n"),
        ([noted(100), edited(100)], "*"),
        ([noted(100), edited(100), saved(100), noted(100)], "*"),
        ([saved(100), saved(100)], "▴"),
    ],
)
async def test_several_events_at_a_step_share_a_mark(dashboard: Dashboard, events: list[Event], sign: str) -> None:
    source = CannedSource(opened(), started(), steps(1, 400), *events)
    async with dashboard(source) as (app, _):
        text = screen_text(app)
        assert [mark for mark in track(text) if mark in "▴nl*"] == [sign]
        assert ("* several" in text) is (sign == "*")


async def test_the_cursor_shows_the_events_of_its_step(dashboard: Dashboard) -> None:
    source = CannedSource(
        opened(), started(), steps(1, 400), noted(100), edited(100), NoteAdded(step=300, text="[b]later")
    )
    async with dashboard(source) as (app, pilot):
        for step, expected in ((100.0, "learning rate x0.5  looks good"), (300.0, "[b]later")):
            app.current.scene.viewport.cursor = step
            app.current.screen.redraw_step_panes()
            await settle(pilot, partial(shows, app, expected), f"the events of step {step}")
        assert "looks good" not in screen_text(app).replace("note at step 100: looks good", "")
