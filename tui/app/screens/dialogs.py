"""Small dialogs over the dashboard: leaving, diverged and deleted runs, learning rate, note, help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, ScreenResultType
from textual.widgets import Input, Static

from trainer.run.control.commands import HIGHEST_LR, NOTE_LENGTH, ScaleLr, SetLr
from trainer.run.log.run_events import Diverged
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S, READING_DELAY_S, HeldKeyGuard
from tui.drawing import format as fmt
from tui.state.keys import ACTIONS
from tui.state.pages import PAGES
from tui.widgets.pane import wrapped

_HELP_COLUMNS, _HELP_FRAME = 96, 7  # columns of the help, and of its border, padding and scroll bar

_LEAP = 3.0  # a warning is shown above this multiple of the current rate


class Dialog(ModalScreen[ScreenResultType]):
    """The base of all dialogs."""

    def __init__(self) -> None:
        super().__init__()
        self.key_guard = HeldKeyGuard()

    def on_show(self) -> None:
        """Start the wait for a deliberate key: from here on the dialog can be read."""
        self.key_guard.begin()

    def answer(self, result: ScreenResultType | None) -> None:
        """Close with an answer; a second key that was already on its way is ignored."""
        if self.is_active:
            self.dismiss(result)

    def action_cancel(self) -> None:
        self.answer(None)


def choice_lines(*choices: tuple[str, str]) -> Iterator[Static]:
    """One line per key, with its effect."""
    for key, text in choices:
        yield Static(Text.assemble((f"{key:3}", "bold"), f"  {text}"), classes="choice")


class QuitScreen(Dialog[str]):
    """Asks what to do with a run that is still training. Returns `stop`, `detach`, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "choose('stop')", "stop and save"),
        Binding("d", "choose('detach')", "detach"),
        Binding("q", "again", "the first choice"),
        Binding("enter", "choose('')", "the first choice"),
        Binding("escape,n", "cancel", "cancel"),
    ]

    def __init__(self, *, attached: bool) -> None:
        """With `attached`, another process trains the run; the first choice is then leaving, otherwise stopping."""
        super().__init__()
        stop = ("stop", "s", "stop at the next step and save; resume later")
        detach = ("detach", "d", "leave the screen; training continues")
        self._choices = [detach, stop] if attached else [stop, detach]  # answer, key, effect

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Leave this run?", classes="dialog-title")
            yield from choice_lines(*((key, text) for _, key, text in self._choices), ("esc", "cancel"))

    def action_choose(self, choice: str) -> None:
        self.answer(choice or self._choices[0][0])

    def action_again(self) -> None:
        """Take the first choice when the key that opened the dialog is pressed again; ignore a held key."""
        if self.key_guard.is_over(KEY_REPEAT_DELAY_S):
            self.action_choose("")


class DivergedScreen(Dialog[str]):
    """Asks what to do with a run that is paused after non-finite steps. Returns `back`, `rate`, or None for later."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b,enter", "choose('back')", "go back"),
        Binding("l", "choose('rate')", "learning rate"),
        Binding("escape,q", "cancel", "later"),
    ]

    def __init__(self, event: Diverged) -> None:
        super().__init__()
        self._event = event

    def compose(self) -> ComposeResult:
        choices = [
            ("l", "set a lower learning rate; then p continues from here"),
            ("esc", "decide later; the run is paused"),
        ]
        if self._event.checkpoint:
            choices.insert(0, ("b", f"back to {fmt.printable(self._event.checkpoint)}, at half the learning rate"))
        with Vertical(classes="dialog"):
            yield Static(f"{self._event.in_a_row} non-finite steps in a row", classes="dialog-title")
            effect = "Their loss or gradient was NaN or infinite. They have not changed the weights."
            yield Static(effect, classes="hint")
            yield from choice_lines(*choices)

    def action_choose(self, choice: str) -> None:
        """Close with an answer. The dialog opens by itself, so a key that was meant for the dashboard is ignored."""
        if self.key_guard.is_over(READING_DELAY_S) and (choice != "back" or self._event.checkpoint):
            self.answer(choice)


class DeleteScreen(Dialog[bool]):
    """Asks whether to delete a run. Returns True for yes; enter alone is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "delete", "delete"),
        Binding("n,q,escape,enter", "cancel", "cancel"),
    ]

    def __init__(self, path: str, size: str) -> None:
        super().__init__()
        self._path = path
        self._disk = size

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Delete this run for good?", classes="dialog-title")
            yield Static(Text(f"{fmt.printable(self._path)}\n{self._disk}, with checkpoints, exports and its log"))
            yield from choice_lines(("y", "delete"), ("esc", "cancel"))

    def action_delete(self) -> None:
        self.answer(True)


def typed_rate(text: str, current: float) -> tuple[float | None, float | None]:
    """The rate that a typed number or factor (`x0.5`) sets, None if invalid; and the factor, None for a plain number."""
    number = text.strip().lower()
    is_factor = number.startswith("x")
    try:
        value = float(number.removeprefix("x"))
    except ValueError:
        return None, None
    rate = value * current if is_factor else value
    return rate if 1e-9 <= rate <= HIGHEST_LR else None, value if is_factor else None


class LearningRateScreen(Dialog[SetLr | ScaleLr | None]):
    """Asks for the rate of the next step. Returns the command that sets it, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel"),
        Binding("ctrl+z", "undo", "undo", priority=True),
    ]

    def __init__(self, current: Callable[[], float], edit: float | None) -> None:
        """`current` returns the rate of the next step, which continues to change; `edit` is the factor to undo, None for none."""
        super().__init__()
        self._current = current
        self._edit = edit

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Learning rate of the next step", classes="dialog-title")
            yield Static("the rest of the schedule is scaled by the same factor; x0.5 halves it", classes="hint")
            yield Input(f"{self._current():.4g}", id="rate")
            yield Static(self._hint, classes="hint", id="answer")

    @property
    def _hint(self) -> str:
        back = "" if self._edit is None else f"{self._current() / self._edit:.4g}"
        undo = f"\nctrl+z undoes the last edit (x{self._edit:.3g}): {back}" if back else ""
        return f"enter sets it, esc cancels{undo}"

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the resulting rate, and warn of a large increase: weights that it ruins are not restored by another rate."""
        current = self._current()
        rate, _ = typed_rate(event.value, current)
        if rate is None or current <= 0 or f"{rate:.4g}" == f"{current:.4g}":
            self._say(self._hint)
            return
        leap = "  warning: a learning rate this high can ruin the weights" if rate > _LEAP * current else ""
        self._say(f"{current:.3g} becomes {rate:.3g} (x{rate / current:.3g}); enter sets it{leap}")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        rate, factor = typed_rate(event.value, self._current())
        if rate is None:
            self._say(f"a learning rate is a number above 0 and at most {HIGHEST_LR:g}, or a factor such as x0.5")
        else:
            self.answer(SetLr(lr=rate) if factor is None else ScaleLr(factor=factor))

    def _say(self, text: str) -> None:
        self.query_one("#answer", Static).update(text)

    def action_undo(self) -> None:
        if self._edit is not None:
            self.answer(ScaleLr(factor=1 / self._edit))


class NoteScreen(Dialog[str | None]):
    """Asks for a note. Returns it, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("A note on this run", classes="dialog-title")
            yield Input(max_length=NOTE_LENGTH, id="note")
            yield Static("saved in the log and marked below the curves; enter saves, esc cancels", classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return the note, joined to one line."""
        self.answer(fmt.printable(event.value.strip()) or None)


class HelpScreen(Dialog[None]):
    """Effect of every key. One screen is reused for all openings: laying it out again takes some 60 ms."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "cancel", "close")]

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[str, str] = {}
        self._rows = Static()

    def compose(self) -> ComposeResult:
        self._fill()
        with Vertical(classes="dialog wide-dialog tall-dialog"):
            yield Static(Text.assemble("Keys", ("   up and down scroll, esc closes", "dim")), classes="dialog-title")
            with VerticalScroll(id="help-keys"):
                yield self._rows

    def explain(self, reasons: dict[str, str]) -> None:
        """Scroll to the top and show the reasons, by action name, why actions cannot act now."""
        self._reasons = reasons
        if self.is_mounted:
            self._fill()
            self.query_one("#help-keys").scroll_home(animate=False, immediate=True)

    def on_resize(self) -> None:
        self._fill()

    def _fill(self) -> None:
        text = self._text(min(_HELP_COLUMNS, self.app.size.width * 95 // 100) - _HELP_FRAME)
        if text != self._rows.content:
            self._rows.update(text)

    def _text(self, width: int) -> Content:
        """Keys and sentences in two columns. Wrapped here: a table takes twice as long to lay out."""
        reasons = {name: f" Not now: {fmt.printable(reason)}." for name, reason in self._reasons.items() if reason}
        entries = [(action.shown_keys, action.help, reasons.get(action.name, "")) for action in ACTIONS]
        entries += [(page.shown_keys, page.help, "") for page in PAGES]
        column = max(len(" ".join(keys)) for keys, _, _ in entries) + 2
        parts: list[tuple[str, str]] = []
        for keys, sentence, reason in entries:
            for index, line in enumerate(wrapped(sentence + reason, max(width - column, 10))):
                parts.append((f"{'' if index else ' '.join(keys):{column}}", "bold"))
                parts.append((f"{line}\n", "dim" if reason else ""))
        return Content.assemble(*parts)
