"""Pages of pictures: the run's sheets with captions and heat maps, as half cells or characters."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.canned_pictures import with_pictures
from tests.support.screen import Dashboard, screen_text, see, settle, shows
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import PicturesSaved
from tui.widgets.pane import Pane


async def test_mistakes_and_training_images_are_shown_as_pictures(dashboard: Dashboard, tmp_path: Path) -> None:
    async with dashboard(with_pictures(RunDir(tmp_path))) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, partial(shows, app, "▀▀▀▀"), "the sheet of the run, not the path in the log")
        text = screen_text(app)
        for part in (
            "7 Mistakes on test", "2 most confident  epoch 3", "[red]cat[/]", "true [red]cat", "98 % dog", "name_of_a_file.png",
        ):  # fmt: skip
            assert part in text
        pane = app.current.screen.query_one("#page-mistakes", Pane)
        colours = {str(segment.style) for segment in pane.render_line(2) if "▀" in segment.text}
        assert colours == {"#f80808 on #f80808", "#0808f8 on #0808f8"}
        await pilot.press("8")
        await settle(pilot, partial(shows, app, "24 pixels  epoch 3"), "the other page")
        await see(pilot, "70 % dog")
        await see(pilot, "30 % airplane")


async def test_h_shows_which_places_speak_for_the_prediction(dashboard: Dashboard, tmp_path: Path) -> None:
    async with dashboard(with_pictures(RunDir(tmp_path), heat=[[255, 0], [0, 0]])) as (app, pilot):

        def colours() -> set[str]:
            pane = app.current.screen.query_one("#page-mistakes", Pane)
            return {
                str(segment.style) for line in range(2, 8) for segment in pane.render_line(line) if "▀" in segment.text
            }

        await pilot.press("7")
        await settle(pilot, partial(shows, app, "h heat map"), "the pictures")
        plain = colours()
        await pilot.press("h")
        await settle(pilot, partial(shows, app, "h picture"), "their heat maps")
        assert len(colours()) > len(plain) + 4
        await pilot.press("h")
        await settle(pilot, lambda: colours() == plain, "the pictures again")


async def test_newer_pictures_replace_older_ones(dashboard: Dashboard, tmp_path: Path) -> None:
    source = with_pictures(RunDir(tmp_path))
    async with dashboard(source) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, partial(shows, app, "98 %"), "the first ones")
        with_pictures(RunDir(tmp_path), confidence=0.77)
        source.add(PicturesSaved(what="mistakes", split="test", step=400, epoch=4.0, path="eval/x.png", images=2))
        await settle(pilot, partial(shows, app, "77 %"), "the newer ones")


async def test_pictures_of_another_split_are_not_shown(dashboard: Dashboard, tmp_path: Path) -> None:
    source = with_pictures(RunDir(tmp_path))
    source.add(PicturesSaved(what="mistakes", split="val", step=300, epoch=3.0, path="eval/x.png", images=0))
    async with dashboard(source) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, partial(shows, app, "98 % dog"), "those of test")
        source.add(PicturesSaved(what="mistakes", split="test", step=400, epoch=4.0, path="eval/x.png", images=0))
        await settle(pilot, partial(shows, app, "none kept yet"), "none any more")


async def test_unreadable_pictures_are_explained(dashboard: Dashboard, tmp_path: Path) -> None:
    source = with_pictures(RunDir(tmp_path))
    RunDir(tmp_path).mistakes("test").write_bytes(b"no picture")
    RunDir(tmp_path).training_images.unlink()
    async with dashboard(source) as (app, pilot):
        for key, text in (("7", "mistakes-test.png cannot be read"), ("8", "training.png cannot be read")):
            await pilot.press(key)
            await settle(pilot, partial(shows, app, text), text)


async def test_without_colours_pictures_are_drawn_by_characters(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with dashboard(with_pictures(RunDir(tmp_path))) as (app, pilot):
        await pilot.press("8")
        await settle(pilot, partial(shows, app, "24 pixels"), "the page")
        assert "▀" not in screen_text(app)
        await see(pilot, "+++++++")
