"""`r18-tui` without arguments: lists the available choices, and ends with the chosen command."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import ClassVar

from textual.screen import Screen

from tui.app.screens.start_screen import StartScreen
from tui.app.terminal_app import TerminalApp
from tui.state.start_choices import choices


class StartApp(TerminalApp[list[str]]):
    """Returns the chosen arguments of `r18-tui`; None when the user leaves."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["dashboard.tcss", "start.tcss"]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, runs_dir: Path) -> None:
        super().__init__()
        self._runs_dir = runs_dir

    def get_default_screen(self) -> Screen[None]:
        return StartScreen(choices(self._runs_dir), self._runs_dir)
