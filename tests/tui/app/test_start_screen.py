"""`r18-tui` without arguments: the choices, settings that are checked while they are typed, and own images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from tests.conftest import FolderMaker
from tests.support.screen import screen_text, see, settle, shows
from trainer.config.loader import load_config, parse_overrides, shipped_names
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import create_run
from tui.app.screens.pick_folder import FolderScreen
from tui.app.screens.settings import SettingsScreen
from tui.app.screens.start_screen import StartApp
from tui.state.config_form import MAIN_SETTINGS, main_settings, resolve, typed
from tui.state.start_choices import choices

Start = tuple[StartApp, Pilot[list[str]]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractAsyncContextManager[Start]]:
    """Opens the start screen in an empty folder."""
    monkeypatch.chdir(tmp_path)

    @asynccontextmanager
    async def run(size: tuple[int, int] = (120, 40)) -> AsyncIterator[Start]:
        app = StartApp(tmp_path / "runs")
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.2)
            yield app, pilot

    return run


async def highlight(pilot: Pilot[Any], label: str) -> None:
    """Move to an entry of the list."""
    options = pilot.app.screen.query_one(OptionList)
    for index in range(options.option_count):
        if str(options.get_option_at_index(index).prompt).strip().startswith(label):
            options.highlighted = index
    await pilot.pause(0.1)


def test_every_shipped_configuration_is_described_with_its_accuracy(tmp_path: Path) -> None:
    by_config = {choice.config: choice for choice in choices(tmp_path) if choice.config}
    assert set(by_config) == set(shipped_names())
    assert next(iter(by_config)) == "digits", "the configuration that needs no download comes first"
    for name, choice in by_config.items():
        assert "Reaches:" in choice.about, name
        assert "#" not in choice.about
        assert choice.command == (name,)


def test_live_runs_come_first_and_other_runs_last(tmp_path: Path) -> None:
    runs = [create_run(tmp_path, name) for name in ("old", "now")]
    for run in runs:
        run.events.touch()
    lock = RunLock.take(runs[1])
    try:
        listed = choices(tmp_path)
    finally:
        lock.release()
    assert (listed[0].label, listed[0].command) == ("now", ("attach", str(tmp_path / "now")))
    assert [choice.label for choice in listed[-2:]] == ["old", "all runs (2)"]
    assert listed[-2].command == ("show", str(tmp_path / "old"))


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_the_start_screen_fits_and_starts_with_one_key(
    start: Callable[..., AbstractAsyncContextManager[Start]], size: tuple[int, int], tmp_path: Path
) -> None:
    async with start(size) as (app, pilot):
        await see(pilot, "digits")
        assert shows(app, "Handwritten digits") is (size[0] > 72)
        await see(pilot, "enter settings")
        await pilot.press("s")
    assert app.return_value == ["digits", "--runs-dir", str(tmp_path / "runs")]


async def test_leaving_starts_nothing(start: Callable[..., AbstractAsyncContextManager[Start]]) -> None:
    async with start() as (app, pilot):
        await pilot.press("q")
    assert app.return_value is None


async def test_changed_settings_are_explained_checked_and_in_the_command(
    start: Callable[..., AbstractAsyncContextManager[Start]], tmp_path: Path
) -> None:
    async with start() as (app, pilot):
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "equivalent command"), "the settings")
        field = app.screen.query_one("#set-train-epochs", Input)
        field.focus()
        await settle(pilot, partial(shows, app, "values: whole number"), "the explanation")
        field.value = "many"
        await settle(pilot, partial(shows, app, "train.epochs: expected int; found 'many'"), "the problem")
        await pilot.press("ctrl+r")
        assert isinstance(app.screen, SettingsScreen), "an invalid setting starts nothing"
        field.value = "20"
        await settle(pilot, partial(shows, app, "r18-tui digits train.epochs=20"), "the command")
        await see(pilot, "was 6")
        await pilot.press("ctrl+r")
        await pilot.pause(0.1)
    assert app.return_value == ["digits", "train.epochs=20", "--runs-dir", str(tmp_path / "runs")]


async def test_the_arrows_move_between_settings_and_ctrl_q_goes_back(
    start: Callable[..., AbstractAsyncContextManager[Start]],
) -> None:
    async with start((80, 24)) as (app, pilot):
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "equivalent command"), "the settings")
        for key, field in (("down", "train-epochs"), ("enter", "data-batch_size"), ("up", "train-epochs")):
            await pilot.press(key)
            await pilot.pause()
            assert app.screen.focused is app.screen.query_one(f"#set-{field}"), key
        await pilot.press("9")
        await settle(pilot, partial(shows, app, "r18-tui digits train.epochs=9"), "what was typed")
        await pilot.press("ctrl+q")
        await settle(pilot, partial(shows, app, "enter settings"), "the list")
        await pilot.press("ctrl+q")
        await pilot.pause(0.1)
    assert app.return_value is None


@pytest.mark.parametrize("folder", ["~nosuchuser/x", "x" * 300, "-x", "photos=2024"])
async def test_any_folder_may_be_typed(start: Callable[..., AbstractAsyncContextManager[Start]], folder: str) -> None:
    async with start() as (app, pilot):
        await highlight(pilot, "own images")
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "A folder of your own images"), "the question")
        question = app.screen
        assert isinstance(question, FolderScreen)
        question.query_one("#folder-path", Input).value = folder
        question.query_one("#folder-path", Input).focus()
        await pilot.press("enter")
        await pilot.pause(0.3)
        await settle_long(pilot, lambda: not question.is_inspecting)
        await pilot.pause(0.2)
        text = screen_text(app)
        assert any(word in text for word in ("no such folder", "too long", "home directory", "train/<class>")), text
        assert "unrecognized" not in text


async def test_settings_are_saved_without_replacing_a_file(
    start: Callable[..., AbstractAsyncContextManager[Start]], tmp_path: Path
) -> None:
    (tmp_path / "digits.yaml").write_text("mine\n")
    async with start() as (app, pilot):
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "equivalent command"), "the settings")
        app.screen.query_one("#set-optim-lr", Input).value = "0.1"
        await pilot.pause(0.1)
        await pilot.press("ctrl+s")
        await settle(pilot, partial(shows, app, "saved as digits-2.yaml"), "the file")
        await pilot.press("ctrl+r")
        await pilot.pause(0.1)
    assert app.return_value == ["digits-2.yaml", "--runs-dir", str(tmp_path / "runs")]
    assert (tmp_path / "digits.yaml").read_text() == "mine\n"
    assert load_config("digits-2.yaml").config == load_config("digits", ["optim.lr=0.1"]).config


async def test_own_images_are_surveyed_and_their_settings_shown(
    start: Callable[..., AbstractAsyncContextManager[Start]], make_folder: FolderMaker, tmp_path: Path
) -> None:
    root = make_folder()
    async with start() as (app, pilot):
        await highlight(pilot, "own images")
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "A folder of your own images"), "the question")
        await pilot.press("tab", "shift+tab", "enter")
        await settle(pilot, partial(shows, app, "no folder yet"), "what is missing")
        app.screen.query_one("#folder-path", Input).value = str(tmp_path / "nothing")
        await pilot.press("enter")
        await settle(pilot, partial(shows, app, "train/<class>/*.jpg"), "what is expected")
        question = app.screen
        assert isinstance(question, FolderScreen)
        await settle(pilot, lambda: not question.is_inspecting, "the end of the first look")
        app.screen.query_one("#folder-path", Input).value = str(root)
        await pilot.press("enter")
        await settle_long(pilot, lambda: isinstance(app.screen, SettingsScreen))
        await pilot.pause(0.3)
        await see(pilot, f"{root.name}.yaml")
        await see(pilot, "data.root")
        await pilot.press("ctrl+r")
        await pilot.pause(0.1)
    assert app.return_value == [f"{root.name}.yaml", "--runs-dir", str(tmp_path / "runs")]
    assert load_config(f"{root.name}.yaml").config.data.root == str(root)


async def settle_long(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Wait up to 30 s, for the process that surveys images."""
    for _ in range(300):
        if condition():
            return
        await pilot.pause(0.1)
    raise AssertionError(screen_text(pilot.app))


@pytest.mark.parametrize("name", shipped_names())
def test_main_settings_are_read_back_unchanged(name: str) -> None:
    config = load_config(name).config
    shown = main_settings(config)
    assert set(shown) <= set(MAIN_SETTINGS)
    resolved, problems = resolve(name, shown)
    assert problems == {}
    assert resolved is not None
    assert resolved.config == config


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=40))
def test_any_typed_text_is_read_back_unchanged(text: str) -> None:
    assert list(parse_overrides([f"data.root={typed(text)}"])) == [("data.root", text)]


def test_problems_are_reported_by_setting() -> None:
    resolved, problems = resolve("digits", {"optim.lr": "-1", "data.flip": "sometimes", "train.epochs": "3"})
    assert resolved is None
    assert set(problems) == {"optim.lr", "data.flip"}
    assert "none" in problems["data.flip"]
