"""The result of a learning-rate range test, in a dialog over the dashboard."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from trainer.run.log.result_events import LrRangeTested
from tui.app.screens.dialogs import Dialog, choice_lines
from tui.app.screens.held_key_guard import READING_DELAY_S
from tui.drawing import format as fmt
from tui.drawing.lr_range_plot import lr_range_plot

_WIDEST, _HIGHEST = 72, 16
_BESIDE = 12  # columns and rows that the dialog needs besides the curve


class LrRangeScreen(Dialog[float | None]):
    """Shows the curve. Returns the suggested rate if it is accepted, else None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,t", "take", "take it over"),
        Binding("escape,q", "cancel", "close"),
    ]

    def __init__(self, event: LrRangeTested) -> None:
        super().__init__()
        self._event = event

    def compose(self) -> ComposeResult:
        width = min(self.app.size.width - _BESIDE, _WIDEST)
        height = min(self.app.size.height - _BESIDE, _HIGHEST)
        with Vertical(classes="dialog wide-dialog"):
            yield Static("Loss against the learning rate", classes="dialog-title")
            plot = lr_range_plot(self._event.lrs, self._event.losses, width, height) if height >= 5 else ""
            if plot:
                yield Static(Text(plot))
            yield Static(Text(fmt.printable(self._event.reason)), classes="hint")
            if self._event.suggestion is not None:
                take = f"sets {self._event.suggestion:g} from the next step on; the rest of the schedule scales with it"
                yield from choice_lines(("enter", take))
            yield from choice_lines(("esc  ", "keep the current learning rate"))

    def action_take(self) -> None:
        if self._event.suggestion is not None and self.key_guard.is_over(READING_DELAY_S):
            self.answer(self._event.suggestion)
