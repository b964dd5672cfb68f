"""Output of libraries under a dashboard: read, announced, shown literally, scrolled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.canned import training_run
from tests.support.screen import Dashboard, screen_text, see, settle, shows
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Warned
from tui.state import log_tail as log_reader
from tui.state.log_tail import LINES_KEPT, LogReader


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.fixture
def reader(log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogReader]:
    """A reader that looks only when called."""
    monkeypatch.setattr(LogReader, "_follow", lambda _: None)
    reader = LogReader(RunDir(log.parent))
    yield reader
    reader.close()


def test_only_whole_lines_are_shown_and_earlier_ones_are_not_new(log: Path, reader: LogReader) -> None:
    log.write_bytes(b"before\n")
    reader.look()
    assert (reader.lines, reader.added) == (("before",), 0)
    with log.open("ab") as file:
        file.write(b"one\ntw")
    reader.look()
    assert (reader.lines, reader.added) == (("before", "one"), 1)
    with log.open("ab") as file:
        file.write(b"o\n")
    reader.look()
    assert (reader.lines, reader.added) == (("before", "one", "two"), 2)


def test_a_progress_bar_shows_its_last_state_and_colours_are_removed(log: Path, reader: LogReader) -> None:
    log.write_bytes(b" 10%|#   |\r 99%|### |\r100%|####|\r\n\x1b[1;31mred\x1b[0m\n\xff\n")
    reader.look()
    assert reader.lines == ("100%|####|", "red", "\ufffd")


def test_only_the_last_lines_are_kept(log: Path, reader: LogReader) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    reader.look()
    assert len(reader.lines) == LINES_KEPT
    assert reader.lines[-1] == "line 99999"


def test_a_log_replaced_by_a_shorter_one_is_read_from_its_start(log: Path, reader: LogReader) -> None:
    log.write_text("a long line of the first\n")
    reader.look()
    log.write_text("")
    reader.look()
    with log.open("a") as file:
        file.write("new\n")
    reader.look()
    assert reader.lines[-1] == "new"


def test_a_missing_log_has_no_lines(reader: LogReader) -> None:
    reader.look()
    assert reader.lines == ()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "_EVERY_S", 0.05)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
@pytest.mark.parametrize("no_color", [False, True])
async def test_printed_lines_are_announced_and_shown_literally(
    dashboard: Dashboard, log: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], no_color: bool
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    log.write_text("from before\n")
    async with dashboard(training_run(), size=size) as (app, pilot):
        assert "+1" not in screen_text(app)
        with log.open("a") as file:
            file.write("warning: [b]bold[/b] \x1b]0;title\x07 text\n")
        await settle(pilot, lambda: shows(app, "+1"), "the text")
        await pilot.press("m")
        await settle(pilot, lambda: shows(app, "warning: [b]bold[/b] ?]0;title? text"), "the text")
        text = screen_text(app)
        assert "from before" in text
        assert "epoch 3" in text, "the run's own messages are above"
        await pilot.press("escape")
        await settle(pilot, lambda: shows(app, "q quit") and not shows(app, "+1"), "the dashboard, and no new lines")


@pytest.mark.usefixtures("quick")
async def test_scrolled_messages_keep_their_place_while_new_ones_come(dashboard: Dashboard) -> None:
    source = training_run()
    source.add(*(Warned(message=f"warning number {number:03d}") for number in range(100)))

    def numbers() -> list[str]:
        return [line for line in screen_text(app).splitlines() if "warning number" in line]

    async with dashboard(source) as (app, pilot):
        await pilot.press("m")
        await settle(pilot, lambda: shows(app, "warning number 099"), "the last message")
        await pilot.press("pageup")
        await settle(pilot, lambda: not shows(app, "warning number 099"), "messages before")
        await see(pilot, "new lines below: end")
        before = numbers()
        source.add(Warned(message="the newest"))
        await settle(pilot, lambda: shows(app, " of 109"), "the new total")
        assert numbers() == before
        await pilot.press("end")
        await settle(pilot, lambda: shows(app, "the newest"), "the newest message")
        await pilot.press("up")
        await settle(pilot, lambda: not shows(app, "the newest"), "one row up")
