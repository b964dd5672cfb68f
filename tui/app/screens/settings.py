"""The main settings of a configuration, each explained and checked while it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus, Resize
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, Static

from trainer.config.field_docs import explanation
from trainer.config.loader import LoadedConfig
from trainer.host.atomic_files import unused_path, write_atomically
from tui.drawing import format as fmt
from tui.state.config_form import command_of, main_settings, resolve, shown_command, whole_yaml
from tui.widgets.key_bar import key_line

_NARROW = 84  # columns below which explanations are shown under the fields
_SHORT = 18  # rows below which explanations get few of them


class SettingInput(Input):
    """An input field that the up and down arrows leave."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,enter", "app.focus_next", "next"),
        Binding("up", "app.focus_previous", "previous"),
    ]


class SettingsScreen(ModalScreen[list[str] | None]):
    """One field per setting. Returns the arguments of `r18-tui` that start the run, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "start", "start"),
        Binding("ctrl+s", "save", "save"),
        Binding("escape", "cancel", "back"),
    ]

    def __init__(self, source: str) -> None:
        """`source` is a configuration as for `load_config`."""
        super().__init__(id="settings")
        self._source = source
        self._resolved, self._problems = resolve(source, {})
        self._original = main_settings(self._resolved.config) if self._resolved is not None else {}
        self._typed = dict(self._original)
        self._saved = ""

    def compose(self) -> ComposeResult:
        title = Text.assemble((f" {fmt.printable(self._source)}", "bold"), ("  settings", "dim"))
        yield Static(title, id="settings-title")
        with Horizontal(id="settings-body"):
            with VerticalScroll(id="settings-fields", can_focus=False):
                for key, text in self._original.items():
                    with Horizontal(classes="setting"):
                        yield Label(key, classes="setting-key")
                        choices = [word.strip("`") for word in explanation(key)[1] if word.startswith("`")]
                        suggester = SuggestFromList(choices) if choices else None
                        yield SettingInput(text, id=_id_of(key), compact=True, suggester=suggester)
            with Vertical(id="settings-beside"):
                yield Static(id="setting-explained")
                yield Static(id="settings-amount-to")
        keys = (("esc", "back"), ("ctrl+r", "start"), ("ctrl+s", "save as YAML"), ("up down", "move"))
        yield Static(key_line(*keys), id="settings-keys")

    def on_mount(self) -> None:
        self._show_result()

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width < _NARROW, "-narrow")
        self.set_class(event.size.height < _SHORT, "-short")

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        if isinstance(event.widget, Input):
            self._explain(_key_of(event.widget))

    def on_input_changed(self, event: Input.Changed) -> None:
        key = _key_of(event.input)
        if self._typed[key] == event.value:
            return
        self._typed[key] = event.value
        self._saved = ""
        self._resolved, self._problems = resolve(self._source, self._overrides)
        for field in self.query(Input):
            field.set_class(_key_of(field) in self._problems, "-wrong")
            field.set_class(_key_of(field) in self._overrides, "-changed")
        self._explain(key)
        self._show_result()

    def action_start(self) -> None:
        if self._resolved is None:
            self._show_result()
        elif self._saved:
            self.dismiss([self._saved])
        else:
            self.dismiss(command_of(self._source, self._overrides))

    def action_save(self) -> None:
        """Write the whole configuration to a new file; no existing file is replaced."""
        if self._resolved is None:
            return
        path = unused_path(Path(f"{self._resolved.config.run.name}.yaml"))
        try:
            write_atomically(path, whole_yaml(self._resolved.config).encode(), private=False)
        except OSError as error:
            self._show_result(f"{path}: cannot be written: {error.strerror or error}")
            return
        self._saved = str(path)
        self._show_result(f"saved as {path}; r18-tui {path} trains it")

    def action_cancel(self) -> None:
        self.dismiss(None)

    @property
    def _overrides(self) -> dict[str, str]:
        return {key: text for key, text in self._typed.items() if text != self._original[key]}

    def _explain(self, key: str) -> None:
        meaning, values = explanation(key)
        text = Text.assemble((key, "bold"), "\n", meaning.replace("`", ""))
        if values:
            text.append(f"\nvalues: {', '.join(values)}".replace("`", ""), "dim")
        if key in self._overrides:
            text.append(f"\nwas {fmt.printable(self._original[key])}", "dim")
        self.query_one("#setting-explained", Static).update(text)

    def _show_result(self, message: str = "") -> None:
        if self._resolved is None:
            problems = [f"{key}: {problem}" if key else problem for key, problem in self._problems.items()]
            text = Text("\n".join(fmt.printable(problem) for problem in problems), "bold red")
        else:
            command = fmt.printable(shown_command(self._source, self._overrides))
            steps = f"\n{_steps(self._resolved)}"
            text = Text.assemble(("equivalent command", "dim"), "\n", command, (steps, "dim"))
        if message:
            text.append(f"\n\n{fmt.printable(message)}", "bold")
        self.query_one("#settings-amount-to", Static).update(text)


def _steps(resolved: LoadedConfig) -> str:
    config = resolved.config
    what = f"ResNet-18, {config.model.stem} stem, {config.data.image_size} pixels"
    return f"{what}, {config.train.epochs} epochs, {config.optim.name}"


def _id_of(key: str) -> str:
    return f"set-{key.replace('.', '-')}"


def _key_of(field: Input) -> str:
    return (field.id or "").removeprefix("set-").replace("-", ".", 1)
