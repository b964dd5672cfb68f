"""The rate at which the screen is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tui import cli
from tui.commands import train
from tui.state.ui_settings import UiSettings


def test_low_bandwidth_redraws_every_four_seconds_at_most() -> None:
    assert UiSettings().redraw_every_s == 0.5
    assert UiSettings(redraw_hz=10.0, low_bandwidth=True).redraw_every_s == 4.0
    assert UiSettings(redraw_hz=0.1, low_bandwidth=True).redraw_every_s == 10.0


@pytest.mark.parametrize(("options", "low"), [([], False), (["--low-bandwidth"], True)])
def test_the_low_bandwidth_option_sets_the_runs_configuration(options: list[str], low: bool, tmp_path: Path) -> None:
    arguments = cli._train_parser().parse_args(["digits", "--runs-dir", str(tmp_path), *options])
    assert train._check(arguments, ["train.epochs=2"]).settings.values["ui"]["low_bandwidth"] is low


@pytest.mark.parametrize("command", ["show", "attach"])
def test_viewers_take_the_low_bandwidth_option(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "events.jsonl").touch()
    shown: list[bool] = []

    def look(_port: object, _runs_dir: Path, ui: UiSettings, **_: object) -> int:
        shown.append(ui.low_bandwidth)
        return 0

    monkeypatch.setattr(f"tui.commands.{command}.is_terminal", lambda: True)
    monkeypatch.setattr(f"tui.commands.{command}.wait_for_foreground", lambda: None)
    monkeypatch.setattr("tui.commands.attach.look_at", look)
    monkeypatch.setattr("tui.app.show_in_terminal.look_at", look)
    assert cli.main([command, str(tmp_path / "demo"), "--low-bandwidth"]) == 0
    assert cli.main([command, str(tmp_path / "demo")]) == 0
    assert shown == [True, False]
