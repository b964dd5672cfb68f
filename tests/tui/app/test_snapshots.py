"""Whole screens as readable text: the characters, and below them a letter for the colour of each.

After a wanted change: `pytest -n 0 tests/tui/app/test_snapshots.py --snapshot-update`, then read the diff.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from tests.support.canned import START, CannedSource, Recorder, opened, steps, training_run
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import CheckpointFailed
from trainer.run.log.run_events import Failed, LrEdited, StateChanged
from tui.app.app import DashboardApp
from tui.drawing.themes import DARK, THEMES
from tui.state.run_port import RunPort
from tui.state.ui_settings import UiSettings

LETTERS = {
    "r18-train": "T", "r18-raw": "r", "r18-test": "E", "r18-good": "g", "r18-warn": "w", "r18-bad": "b", "r18-accent": "a",
    "r18-dim": "d", "r18-faint": "f",
}  # fmt: skip
COLOURS = {DARK[name]: letter for name, letter in LETTERS.items()} | {str(THEMES[0].foreground): "."}


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in (("TZ", "UTC"), ("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("LANG", "C.UTF-8")):
            patch.setenv(name, value)
        for name in ("NO_COLOR", "LC_ALL", "LC_CTYPE"):
            patch.delenv(name, raising=False)
        time.tzset()
        yield
    time.tzset()


def failed() -> CannedSource:
    return CannedSource(opened(), Failed(
        error="photos: train/ is missing\nfound:\n  pictures/", exit_code=2, checkpoint="step-00000004.safetensors",
        resume="r18-tui --resume runs/demo",
    ))  # fmt: skip


def full() -> CannedSource:
    source = training_run()
    source.add(CheckpointFailed(step=300, error="only 12 MB free, a checkpoint needs 90 MB; make room at runs/demo"))
    return source


def paused() -> CannedSource:
    source = training_run()
    source.add(LrEdited(step=250, factor=0.5, lr=0.07), StateChanged(state="paused"))
    return source


def waiting() -> CannedSource:
    source = training_run()
    source.add(dataclasses.replace(steps(301), budget={"data": 31.0, "compute": 150.0, "evaluate": 5.0, "save": 1.0}))
    return source


CASES: dict[str, tuple[Callable[[], CannedSource], tuple[int, int], list[str]]] = {
    "training, 120x40": (training_run, (120, 40), []),
    "training, 80x24": (training_run, (80, 24), []),
    "training, 40x12": (training_run, (40, 12), []),
    "too small": (training_run, (30, 8), []),
    "nothing yet": (lambda: CannedSource(opened()), (120, 40), []),
    "paused, logarithmic": (paused, (120, 40), ["y"]),
    "one pane": (training_run, (80, 24), ["tab", "tab", "enter"]),
    "classes, 120x40": (training_run, (120, 40), ["5"]),
    "classes, 40x12": (training_run, (40, 12), ["5"]),
    "confusion, 120x40": (training_run, (120, 40), ["6"]),
    "confusion, 80x24": (training_run, (80, 24), ["6"]),
    "confusion, 40x12": (training_run, (40, 12), ["6"]),
    "network, 120x40": (training_run, (120, 40), ["9"]),
    "network, 40x12": (training_run, (40, 12), ["9"]),
    "weights, 120x40": (training_run, (120, 40), ["w"]),
    "weights, 80x24": (training_run, (80, 24), ["w"]),
    "plan, 40x12": (training_run, (40, 12), ["a"]),
    "waiting for data, 120x40": (waiting, (120, 40), []),
    "waiting for data, 40x12": (waiting, (40, 12), []),
    "failed": (failed, (120, 40), []),
    "disk full, 80x24": (full, (80, 24), []),
    "disk full, 40x12": (full, (40, 12), []),
    "help": (training_run, (80, 24), ["question_mark"]),
    "learning rate asked for": (training_run, (80, 24), ["l"]),
}


@pytest.mark.parametrize("case", CASES)
async def test_screen(case: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    make, size, keys = CASES[case]
    port = RunPort(run_dir=RunDir(tmp_path), source=make(), control=Recorder())
    app = DashboardApp(port, UiSettings(theme="dark"), clock=lambda: START + 30)
    async with app.run_test(size=size) as pilot:
        await steady(app, pilot)
        await pilot.press(*keys)
        characters, colours = await steady(app, pilot)
    assert f"{characters}\n\n{colours}" == snapshot


async def steady(app: DashboardApp, pilot: Pilot[int]) -> tuple[str, str]:
    """The screen once it has not changed for half a second."""
    shown, since = ("", ""), time.monotonic()
    end = since + 20
    while time.monotonic() - since < 0.5:
        await pilot.pause(0.1)
        if (now := screen(app)) != shown:
            shown, since = now, time.monotonic()
        assert time.monotonic() < end, "the screen keeps changing"
    return shown


def screen(app: DashboardApp) -> tuple[str, str]:
    """The screen's characters and the letters of their colours, line by line."""
    lines, letters = [], []
    for strip in app.screen._compositor.render_strips():
        line = letter = ""
        for segment in strip:
            colour = segment.style.color.get_truecolor().hex if segment.style and segment.style.color else ""
            line += segment.text
            letter += "".join(" " if char == " " else COLOURS.get(colour, "?") for char in segment.text)
        lines.append(line.rstrip())
        letters.append(letter.rstrip())
    return "\n".join(lines), "\n".join(letters)
