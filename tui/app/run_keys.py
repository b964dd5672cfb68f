"""Actions of a dashboard's keys: commands to the run, and changes of its display."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

from textual.app import App

from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command
from trainer.run.view.run_view import SMOOTHING
from tui.app.run_dialogs import RunDialogs
from tui.app.runs_list import RunsList
from tui.state.keys import ACTIONS

if TYPE_CHECKING:
    from tui.app.screens.dialogs import HelpScreen

_COMMANDS: dict[str, tuple[Callable[[], Command], str]] = {
    "checkpoint": (cmd.SaveCheckpoint, "saving"),
    "evaluate": (cmd.Evaluate, "evaluating"),
    "export": (cmd.Export, "exporting"),
    "unfreeze": (cmd.Unfreeze, "unfreezing"),
    "freeze": (cmd.Freeze, "freezing"),
    "go_back": (cmd.GoBack, "going back"),
}
"""Keys that send a command at once: its class, and the word shown until the answer arrives."""


class RunKeys:
    """Acts on the run on the screen; `actions` has a function per action of `tui.state.keys`."""

    def __init__(self, app: App[int], runs: RunsList, dialogs: RunDialogs) -> None:
        self._app = app
        self._runs = runs
        self.actions: dict[str, Callable[[], None]] = {
            **{name: partial(self._send, name) for name in _COMMANDS},
            "pause": self._pause,
            "learning_rate": dialogs.learning_rate,
            "plan": dialogs.plan,
            "note": dialogs.note,
            "find_lr": dialogs.find_lr,
            "log_scale": self._log_scale,
            "smoothing": self._smoothing,
            "zoom": self._zoom,
            "next_pane": self._next_pane,
            "previous_pane": self._previous_pane,
            "runs": runs.show,
            "messages": self._messages,
            "help": self._help,
        }

    def _send(self, name: str) -> None:
        command, word = _COMMANDS[name]
        self._runs.watched.send(name, command(), word)

    def _pause(self) -> None:
        run = self._runs.watched
        if run.view.held:
            run.send("pause", cmd.Unpause(), "resuming")
        else:
            run.send("pause", cmd.Pause(), "pausing")

    def _log_scale(self) -> None:
        run = self._runs.watched
        run.scene.log_scale = not run.scene.log_scale
        run.remark(f"loss axis {'logarithmic' if run.scene.log_scale else 'linear'}")
        run.screen.draw_next("loss", "m-loss")

    def _smoothing(self) -> None:
        run = self._runs.watched
        run.scene.smoothing = SMOOTHING[(SMOOTHING.index(run.scene.smoothing) + 1) % len(SMOOTHING)]
        run.remark(f"smoothing {run.scene.smoothing:g}" if run.scene.smoothing else "no smoothing")
        run.screen.draw_next("loss", "accuracy", "m-loss", "m-accuracy", "compact")

    def _zoom(self) -> None:
        if self._app.screen is self._runs.watched.screen:
            self._runs.watched.screen.toggle_zoom()

    def show_page(self, name: str) -> None:
        if self._app.screen is self._runs.watched.screen:
            self._runs.watched.screen.show_page(name)

    def _next_pane(self) -> None:
        screen = self._runs.watched.screen
        if not screen.show_next_page(1):
            screen.focus_next()

    def _previous_pane(self) -> None:
        screen = self._runs.watched.screen
        if not screen.show_next_page(-1):
            screen.focus_previous()

    def _messages(self) -> None:
        from tui.app.screens.messages import MessagesScreen  # not before the first frame

        self._app.push_screen(MessagesScreen(self._runs.watched.scene))

    def _help(self) -> None:
        now = self._runs.watched.situation()
        self.help_screen.explain({action.name: action.refusal(now) for action in ACTIONS})
        self._app.push_screen(self.help_screen)

    @cached_property
    def help_screen(self) -> HelpScreen:
        from tui.app.screens.dialogs import HelpScreen  # not before the first frame

        screen = HelpScreen()
        self._app.install_screen(screen, "help")
        return screen
