"""`r18-tui` without arguments: lists what there is to begin with, and ends with the command that was chosen."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from tui.driver import TerminalDriver
from tui.screens.start import StartScreen
from tui.start_choices import choices
from tui.themes import THEMES, colours_beside, no_color, theme_for


class StartApp(App[list[str]]):
    """Returns the arguments of `r18-tui` that were chosen; None when the user leaves."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["dashboard.tcss", "start.tcss"]
    TITLE = "r18-tui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "back", "back", priority=True)
    ]  # not Textual's own: quit

    def __init__(self, runs_dir: Path) -> None:
        """List what there is.

        Args:
            runs_dir: The folder of runs.
        """
        super().__init__(driver_class=TerminalDriver, ansi_color=True if no_color() else None)
        self._runs_dir = runs_dir
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = theme_for("auto")

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Colours of the themes that are not our own."""
        theme: Theme = self.current_theme
        return colours_beside(theme)

    async def action_back(self) -> None:
        """From a dialog to the list, from there to the shell."""
        await self.run_action("screen.leave" if isinstance(self.screen, StartScreen) else "screen.cancel")

    def get_default_screen(self) -> Screen[None]:
        """The list is the first screen."""
        return StartScreen(choices(self._runs_dir), self._runs_dir)
