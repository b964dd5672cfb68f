"""`r18-tui` without arguments: the available choices, each with a description; ends with the chosen command."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePath
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.app.screens.pick_folder import FolderScreen
from tui.app.screens.settings import SettingsScreen
from tui.app.terminal_app import TerminalApp
from tui.drawing import format as fmt
from tui.state.start_choices import Choice, choices
from tui.widgets.key_bar import key_line

_NARROW = 72  # columns below which only the list is shown


class StartApp(TerminalApp[list[str]]):
    """Returns the chosen arguments of `r18-tui`; None when the user leaves."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../dashboard.tcss", "../start.tcss"]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, runs_dir: Path) -> None:
        super().__init__()
        self._runs_dir = runs_dir

    def get_default_screen(self) -> Screen[None]:
        return StartScreen(choices(self._runs_dir), self._runs_dir)


class StartScreen(Screen[None]):
    """A list, and beside it a description of the highlighted choice. Every choice ends the application with a command."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "start as it is"),
        Binding("q,escape", "leave", "leave"),
    ]

    def __init__(self, choices: list[Choice], runs_dir: Path) -> None:
        super().__init__(id="start")
        self._choices = choices
        self._runs_dir = runs_dir

    def compose(self) -> ComposeResult:
        title = Text.assemble((" r18-tui", "bold"), ("  train ResNet-18, watch it, steer it, export it", "dim"))
        yield Static(title, id="start-title")
        with Horizontal(id="start-body"):
            yield OptionList(*_options(self._choices), id="start-list")
            with VerticalScroll(id="start-about", can_focus=False):
                yield Static(id="start-text")
        yield Static(id="start-keys")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self.query_one(OptionList).action_first()

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width < _NARROW, "-narrow")

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        choice = self._choices[int(event.option_id or 0)]
        text = Text.assemble((fmt.printable(choice.label), "bold"), "\n\n", fmt.printable(choice.about, keep="\n"))
        self.query_one("#start-text", Static).update(text)
        keys = [("enter", "settings" if choice.config else "open")]
        keys += [("s", "start as it is")] if choice.config else []
        self.query_one("#start-keys", Static).update(key_line(("q", "leave"), *keys, ("up down", "move")))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if not self.is_active:
            return  # a second click was on its way
        choice = self._choices[int(event.option_id or 0)]
        if choice.config:
            self._show_settings(choice.config)
        elif choice.command:
            self.app.exit(list(choice.command))
        else:
            self.app.push_screen(FolderScreen(self._runs_dir), self._show_settings)

    def action_start(self) -> None:
        lit = self.query_one(OptionList).highlighted_option
        choice = self._choices[int(lit.id or 0)] if lit is not None else None
        if choice is not None and choice.config:
            self.app.exit([*choice.command, "--runs-dir", str(self._runs_dir)])

    def action_leave(self) -> None:
        self.app.exit(None)

    def _show_settings(self, config: str | None) -> None:
        if config is not None:
            self.app.push_screen(SettingsScreen(config), self._decided)

    def _decided(self, command: list[str] | None) -> None:
        if command is not None:
            self.app.exit([*command, "--runs-dir", str(self._runs_dir)])


def _options(choices: list[Choice]) -> Iterator[Option | None]:
    """The choices by number, with a heading before each kind and a line between kinds."""
    numbered = list(enumerate(choices))
    for index, (heading, group) in enumerate(groupby(numbered, key=lambda item: item[1].heading)):
        if index:
            yield None
        yield Option(Text(heading, "dim"), disabled=True)
        for number, choice in group:
            yield Option(Text(f"  {fmt.printable(choice.label)}"), id=str(number))
