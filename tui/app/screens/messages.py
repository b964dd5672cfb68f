"""The run's messages and the output of libraries, in full."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.app.screens import MESSAGES
from tui.state.display_state import DisplayState
from tui.widgets.key_bar import key_line
from tui.widgets.message_panes import NotesPane, OutputPane, ScrolledPane

_LOOK_EVERY_S = 0.5


class MessagesScreen(ModalScreen[None]):
    """Two panes, one below the other. Modal, so that the keys of the dashboard below it do nothing here."""

    AUTO_FOCUS = "#notes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m,q,escape", "cancel", "back"),
        Binding("tab,shift+tab", "app.focus_next", "other pane"),
    ]

    def __init__(self, scene: DisplayState) -> None:
        super().__init__(id=MESSAGES)
        self._scene = scene
        self._version = -1

    def compose(self) -> ComposeResult:
        yield NotesPane(id="notes")
        yield OutputPane(id="output")
        keys = (("m", "back"), ("tab", "other pane"), ("up down pgup pgdn home end", "scroll"))
        yield Static(key_line(*keys), id="messages-keys")

    def on_mount(self) -> None:
        self._look()
        self.set_interval(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        if self._scene.unseen_output:
            self._scene.unseen_output = 0
            self._scene.version += 1  # the key bar below shows how many there are
        if self._scene.version != self._version:
            self._version = self._scene.version
            for pane in self.query(ScrolledPane):
                pane.paint(self._scene)

    def action_cancel(self) -> None:
        self.dismiss(None)
