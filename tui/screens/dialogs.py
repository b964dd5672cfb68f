"""Small dialogs over the dashboard: leaving, the learning rate, help."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.validation import Number
from textual.widgets import Input, Static

from tui import format as fmt
from tui.actions import ACTIONS


class QuitScreen(ModalScreen[str]):
    """Asks what shall become of a run that is still training. Returns `stop` or `cancel`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,q,enter,ctrl+c,ctrl+q", "choose('stop')", "stop and save"),
        Binding("escape,n", "choose('cancel')", "cancel"),
    ]

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical(classes="dialog"):
            yield Static("Leave this run?", classes="dialog-title")
            yield Static(
                Text.assemble(("s", "bold"), "  stop at the next step and save; resume later"), classes="choice"
            )
            yield Static(Text.assemble(("esc", "bold"), "  cancel, train on"), classes="choice")

    def action_choose(self, choice: str) -> None:
        """Close with an answer."""
        self.dismiss(choice)


class LearningRateScreen(ModalScreen[float | None]):
    """Asks for the rate of the next step. Returns it, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel")]

    def __init__(self, current: float) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        """The current rate, ready to be edited."""
        with Vertical(classes="dialog"):
            yield Static("Learning rate of the next step", classes="dialog-title")
            yield Static("the rest of the schedule is scaled by the same factor", classes="hint")
            yield Input(
                f"{self._current:.4g}", type="number", validators=[Number(minimum=1e-9, maximum=1000)], id="rate"
            )
            yield Static("enter sets it, esc cancels", classes="hint", id="answer")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take a valid rate; explain an invalid one."""
        if event.validation_result is not None and not event.validation_result.is_valid:
            self.query_one("#answer", Static).update("a rate must be a number above 0 and at most 1000")
            return
        self.dismiss(float(event.value))

    def action_cancel(self) -> None:
        """Leave the rate as it is."""
        self.dismiss(None)


class HelpScreen(ModalScreen[None]):
    """What every key does, from the registry."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "close", "close")]

    def __init__(self, reasons: dict[str, str]) -> None:
        """Take why actions cannot act now, by their names."""
        super().__init__()
        self._reasons = reasons

    def compose(self) -> ComposeResult:
        """A line a key."""
        text = Text()
        for action in ACTIONS:
            keys = ", ".join(action.keys.replace("question_mark", "?").split(","))
            reason = self._reasons.get(action.name, "")
            text.append(f"{fmt.fit(keys, 20)} ", style="bold")
            text.append(action.help + "\n", style="dim" if reason else "")
            if reason:
                text.append(f"{'':21}{fmt.literal(reason)}\n", style="italic dim")
        with Vertical(classes="dialog wide-dialog"):
            yield Static("Keys", classes="dialog-title")
            yield Static(text)
            yield Static("train is a line, held-out evaluations are points; esc closes", classes="hint")

    def action_close(self) -> None:
        """Back to the dashboard."""
        self.dismiss(None)
