"""The dialog that changes a run's plan: number of epochs, and how often it evaluates and saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.validation import Number
from textual.widgets import Input, Label, Static

from tui.app.screens.dialogs import Dialog
from tui.drawing import format as fmt

_ROOM_FOR_HINT = 16  # rows of a terminal from which the hint is shown


@dataclass(frozen=True)
class _Field:
    """A setting that can be changed, with the texts before and after its value."""

    key: str
    label: str
    unit: str
    whole: bool
    least: float


_FIELDS = (
    _Field("train.epochs", "train for", "epochs", True, 1),
    _Field("eval.every_epochs", "evaluate every", "epochs", True, 1),
    _Field("checkpoint.every_s", "save every", "seconds", False, 0.001),
)


def _shown(value: float) -> str:
    """Format a number so that it is read back to the same value."""
    return repr(int(value)) if value == int(value) else repr(value)


class PlanScreen(Dialog[dict[str, float] | None]):
    """Asks for the plan. Returns the changed settings by dotted key, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel"),
        Binding("down", "app.focus_next", "next"),
        Binding("up", "app.focus_previous", "previous"),
    ]

    def __init__(self, now: Mapping[str, float], under_way: int, rate: Callable[[int], float]) -> None:
        """`under_way` is the epoch in training, the earliest end; `rate` maps a number of epochs to the next step's rate."""
        super().__init__()
        self._now = now
        self._under_way = under_way
        self._rate = rate

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Training plan", classes="dialog-title")
            for field in _FIELDS:
                least = self._under_way if field.key == "train.epochs" else field.least
                with Horizontal(classes="field"):
                    yield Label(field.label)
                    yield Input(
                        _shown(self._now[field.key]), type="integer" if field.whole else "number",
                        validators=[Number(minimum=least)], id=field.key.replace(".", "-"), compact=True,
                    )  # fmt: skip
                    yield Label(field.unit, classes="unit")
            if self.app.size.height >= _ROOM_FOR_HINT:
                yield Static(self._rate_hint(self._now["train.epochs"]), classes="hint", id="rate")
            yield Static("enter sets them, esc cancels", classes="hint", id="answer")

    def _rate_hint(self, epochs: float) -> str:
        now, then = (fmt.rate(self._rate(int(number))) for number in (self._now["train.epochs"], epochs))
        return f"learning rate of the next step: {now}" + (f", then {then}" if then != now else "")

    def on_input_changed(self, event: Input.Changed) -> None:
        hints = self.query("#rate")
        valid = event.validation_result is None or event.validation_result.is_valid
        if event.input.id == "train-epochs" and hints and valid:
            hints.first(Static).update(self._rate_hint(float(event.value)))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        wanted: dict[str, float] = {}
        for field in _FIELDS:
            box = self.query_one(f"#{field.key.replace('.', '-')}", Input)
            result = box.validate(box.value)
            if result is not None and not result.is_valid:
                least = self._under_way if field.key == "train.epochs" else field.least
                why = f" (epoch {least:g} is running)" if field.key == "train.epochs" and least > 1 else ""
                self.query_one("#answer", Static).update(f"{field.label}: at least {least:g} {field.unit}{why}")
                box.focus()
                return
            value = int(box.value) if field.whole else float(box.value)
            if value != self._now[field.key]:
                wanted[field.key] = value
        self.answer(wanted or None)
