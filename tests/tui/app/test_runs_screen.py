"""The list of runs: its contents, the effects of its keys, and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.canned import START, evaluated, opened, started, steps, training_run
from tests.support.screen import App, Dashboard, screen_text, see, settle, shows
from tests.support.written_runs import write_log
from tests.tui.conftest import HandClock
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Finished
from trainer.session.training_thread import TrainingThread
from tui.app.app import DashboardApp
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S
from tui.commands.runs import print_runs
from tui.state.ui_settings import UiSettings
from tui.widgets.run_rows import RunRows
from tui.widgets.runs_table import age

COMPLETED = Finished(reason="completed", step=1000, epoch=10.0, exit_code=0)
STOPPED = Finished(reason="stopped", step=300, epoch=3.0, exit_code=0)


@asynccontextmanager
async def listed(runs_dir: Path, size: tuple[int, int] = (120, 40), *, read_only: bool = False) -> AsyncIterator[App]:
    """The list of a folder's runs."""
    app = DashboardApp(None, UiSettings(theme="dark"), runs_dir=runs_dir, clock=lambda: START + 30, read_only=read_only)
    async with app.run_test(size=size) as pilot:
        await settle(pilot, lambda: shows(app, "Runs") and not shows(app, "reading"), "the folder is read")
        yield app, pilot


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Two runs: `done`, and `half`, which was started later and stopped."""
    write_log(tmp_path, "done", opened(), started(), steps(1), evaluated(1), evaluated(4), COMPLETED)
    write_log(tmp_path, "half", opened(), started(), steps(1), evaluated(2), STOPPED, begun=START + 10)
    return tmp_path


async def test_every_run_has_a_line(runs_dir: Path) -> None:
    async with listed(runs_dir) as (app, _):
        lines = screen_text(app).splitlines()
        (half,) = [line for line in lines if line.startswith("    half")]
        (done,) = [line for line in lines if line.startswith("    done")]
        assert half.split()[:3] == ["half", "stopped", "1/10"]
        assert done.split()[:5] == ["done", "finished", "1/10", "50.00", "50.00"]
        assert lines.index(half) < lines.index(done)


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12), (25, 8)])
async def test_the_list_fits_into_any_terminal(runs_dir: Path, size: tuple[int, int]) -> None:
    async with listed(runs_dir, size) as (app, pilot):
        for part in ("Runs  ·  2", "half", "stopped", "enter open"):
            await see(pilot, part)
        await settle(
            pilot, lambda: shows(app, "Held-out accuracy") is (size[1] >= 24), "the plots, where there is room"
        )
        await pilot.resize_terminal(100, 30)
        await settle(pilot, lambda: shows(app, "last event"), "all columns after a resize")


async def test_marked_runs_are_compared_in_the_curves_of_the_dashboard(dashboard: Dashboard, tmp_path: Path) -> None:
    write_log(tmp_path.parent, "other", opened(), started(), steps(1), evaluated(1), evaluated(3), STOPPED)
    async with dashboard(training_run()) as (app, pilot):
        await pilot.press("r")
        await settle(pilot, lambda: shows(app, "other"), "the list")
        await pilot.press("space")
        await settle(pilot, lambda: shows(app, "1 other"), "the mark")
        await pilot.press("escape")
        await settle(pilot, lambda: screen_text(app).count("1 other") == 2, "in the legends of loss and accuracy")
        await pilot.press("r")
        await settle(pilot, lambda: shows(app, "1 other") and shows(app, "Runs"), "the mark is kept")
        await pilot.press("space", "escape")
        await settle(pilot, lambda: not shows(app, "1 other") and not shows(app, "Runs  "), "it is taken away")


async def test_a_read_only_list_changes_no_run(runs_dir: Path) -> None:
    lock = RunLock.take(RunDir(runs_dir / "half"))
    try:
        async with listed(runs_dir, read_only=True) as (app, pilot):
            for key in ("r", "delete"):
                await pilot.press(key)
                await settle(pilot, lambda: shows(app, "view only"), f"key {key} is refused")
            assert (runs_dir / "half").is_dir()
            await pilot.press("enter")
            await settle(pilot, lambda: shows(app, "read-only"), "a live run is view only, too")
            assert not app.current.port.control.can_control
    finally:
        lock.release()


async def test_names_from_disk_are_shown_literally_in_the_list(tmp_path: Path) -> None:
    write_log(tmp_path, "[red]a[b]\x1b[2J", opened(), started(), steps(1), evaluated(1))
    async with listed(tmp_path) as (app, pilot):
        await settle(pilot, lambda: screen_text(app).count("[red]a[b]?[2J") == 3, "in the table and in both plots")
        assert "\x1b" not in screen_text(app)


async def test_the_curves_of_marked_runs_are_drawn_together(runs_dir: Path) -> None:
    async with listed(runs_dir) as (app, pilot):
        await settle(pilot, lambda: shows(app, "─ 1 half ─"), "the run under the cursor alone")
        await pilot.press("space", "down", "space")
        await settle(pilot, lambda: screen_text(app).count("─ 1 half  2 done ─") == 2, "both")
        await pilot.press("space")
        await settle(pilot, lambda: not shows(app, "2 done"), "one again")


async def test_a_run_is_opened_from_the_list_and_q_returns_to_it(runs_dir: Path) -> None:
    async with listed(runs_dir) as (app, pilot):
        await pilot.press("enter")
        await settle(pilot, lambda: shows(app, "r18-tui  demo") and shows(app, "stopped at step 300"), "its dashboard")
        for key in ("q", "r"):
            await pilot.press(key)
            await settle(pilot, lambda: shows(app, "Runs  ·"), f"the list after {key}")
            await pilot.press("enter")
            await settle(pilot, lambda: shows(app, "Per-class"), "its dashboard again")
        await pilot.press("q")
        await settle(pilot, lambda: shows(app, "Runs  ·"), "the list")
        await pilot.press("q")
        await settle(pilot, lambda: not app.is_running, "the end")
    assert app.return_value == 0


async def test_a_stopped_run_is_resumed_and_a_finished_one_is_not(runs_dir: Path) -> None:
    async with listed(runs_dir) as (app, pilot):
        await pilot.press("down", "r")
        await settle(pilot, lambda: shows(app, "all its epochs are done"), "why not")
        assert app.is_running
        await pilot.press("up", "r")
        await settle(pilot, lambda: not app.is_running, "the end")
    assert app.runs.resume is not None
    assert app.runs.resume.path == runs_dir / "half"


async def test_a_run_is_deleted_only_after_a_question(runs_dir: Path) -> None:
    async with listed(runs_dir) as (app, pilot):
        for answer in ("enter", "escape", "n"):
            await pilot.press("delete")
            await settle(pilot, lambda: shows(app, "Delete this run for good?"), "the question")
            await pilot.press(answer)
            await settle(pilot, lambda: not shows(app, "for good?"), "no question")
        assert (runs_dir / "half").exists()
        await pilot.press("delete", "y")
        await settle(pilot, lambda: shows(app, "deleted") and shows(app, "Runs  ·  1, "), "one run less")
    assert not (runs_dir / "half").exists()
    assert (runs_dir / "done").exists()


async def test_a_live_run_is_neither_resumed_nor_deleted_from_the_list(runs_dir: Path) -> None:
    lock = RunLock.take(RunDir(runs_dir / "half"))
    async with listed(runs_dir) as (app, pilot):
        await pilot.press("r")
        await settle(pilot, lambda: shows(app, "a process owns this run; enter opens it"), "why not")
        await pilot.press("delete")
        await settle(pilot, lambda: shows(app, "stop it first"), "why not")
    lock.release()


@asynccontextmanager
async def list_over_dashboard(dashboard: Dashboard, tmp_path: Path, **settings: object) -> AsyncIterator[App]:
    """The list, opened from the dashboard of a live run; it has a stopped run called `other`."""
    write_log(tmp_path.parent, "other", opened(), started(), steps(1), evaluated(9), STOPPED)
    async with dashboard(training_run(), **settings) as (app, pilot):
        await pilot.press("r")
        await settle(pilot, lambda: shows(app, "other"), "the list")
        yield app, pilot


async def test_other_runs_are_opened_from_the_list_over_a_dashboard(
    dashboard: Dashboard, tmp_path: Path, key_clock: HandClock
) -> None:
    async with list_over_dashboard(dashboard, tmp_path) as (app, pilot):
        await pilot.press("p")  # not a key of the list
        await pilot.press("enter")
        await settle(pilot, lambda: shows(app, "stopped at step 300"), "the other run")
        await pilot.press("p")
        await settle(pilot, lambda: shows(app, "pause: view only"), "commands to an inactive run are refused")
        await pilot.press("q", "q")
        await settle(pilot, lambda: shows(app, "epoch 3/10"), "the live run")
        assert app.current.port.control.sent == []  # type: ignore[attr-defined]
        await pilot.press("p")
        assert len(app.current.port.control.sent) == 1  # type: ignore[attr-defined]


async def test_a_dashboard_without_training_resumes_a_run_of_its_list(
    dashboard: Dashboard, tmp_path: Path, key_clock: HandClock
) -> None:
    async with list_over_dashboard(dashboard, tmp_path) as (app, pilot):
        key_clock.now += KEY_REPEAT_DELAY_S
        await pilot.press("r")
        await settle(pilot, lambda: not app.is_running, "the end")
    assert app.runs.resume is not None
    assert app.runs.resume.path == tmp_path.parent / "other"


async def test_a_training_process_resumes_no_second_run(
    dashboard: Dashboard, tmp_path: Path, key_clock: HandClock
) -> None:
    trainer = cast(TrainingThread, SimpleNamespace(start=lambda: None, alive=True, exit_code=0))
    async with list_over_dashboard(dashboard, tmp_path, thread=trainer) as (app, pilot):
        key_clock.now += KEY_REPEAT_DELAY_S
        await pilot.press("r")
        await settle(pilot, lambda: shows(app, "one process trains one run"), "no second training")
    assert app.runs.resume is None


async def test_only_visible_rows_are_rendered_and_the_cursor_stays_at_its_run(tmp_path: Path) -> None:
    for number in range(300):
        write_log(tmp_path, f"run-{number:03}", opened(), started(), evaluated(1), COMPLETED, begun=START + number)
    async with listed(tmp_path, (120, 40)) as (app, pilot):
        await settle(pilot, lambda: shows(app, "Runs  ·  300, "), "all are read")
        table = app.screen.query_one(RunRows)
        described: list[str] = []
        describe = table._describe
        table._describe = lambda run: described.append(run.run_dir.name) or describe(run)  # type: ignore[func-returns-value]
        await pilot.press("end")
        await settle(pilot, lambda: shows(app, "─ 1 run-000 ─"), "the last")
        assert 0 < len(set(described)) <= 40
        await pilot.press("up")
        await settle(pilot, lambda: shows(app, "─ 1 run-001 ─"), "the one before")
        write_log(tmp_path, "run-300", opened(), started(), evaluated(1), COMPLETED, begun=START + 300)
        app.screen._reader.read_now()  # type: ignore[attr-defined]
        await settle(pilot, lambda: shows(app, "Runs  ·  301, "), "a new one")
        assert table.selected is not None
        assert table.selected.run_dir.name == "run-001"
        await pilot.press("home", "pagedown", "pageup", "down")
        await settle(pilot, lambda: shows(app, "─ 1 run-299 ─"), "the second")


async def test_q_leaves_while_the_folder_is_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path, "one", opened(), started())
    reading, released = Event(), Event()

    def hang(_path: Path) -> list[object]:
        reading.set()
        released.wait(60)
        return []

    monkeypatch.setattr("trainer.run.view.overview.list_logs", hang)
    app = DashboardApp(None, UiSettings(theme="dark"), runs_dir=tmp_path, clock=lambda: START)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, reading.is_set, "the folder does not answer")
        await pilot.press("q")
        await settle(pilot, lambda: not app.is_running, "the end")
    released.set()
    assert app.return_value == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.6, "60 s"), (130, "2 min"), (3599, "59 min"), (7500, "2 h 05"), (90_000, "1 d"), (1e10, "115740 d")],
)  # fmt: skip
def test_ages_are_rounded(seconds: float, text: str) -> None:
    assert age(seconds) == text


async def test_an_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("trainer.run.view.overview.list_logs", refuse)
    app = DashboardApp(None, UiSettings(theme="dark"), runs_dir=tmp_path, clock=lambda: START)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, lambda: shows(app, "Permission denied"), "the reason")


def test_the_list_is_printed_without_a_terminal(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_runs(runs_dir) == 0
    heading, half, done = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["run", "state", "epoch"]
    assert half.split()[:3] == ["half", "stopped", "1/10"]
    assert done.split()[:4] == ["done", "finished", "1/10", "50.00"]
    assert print_runs(runs_dir / "none") == 0
    assert "no runs here yet" in capsys.readouterr().out
