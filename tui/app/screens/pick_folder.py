"""Asks for a folder of images, inspects it with `init`, and returns the configuration written for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DirectoryTree, Input, Static

from trainer.host.atomic_files import unused_path
from trainer.host.safe_text import plain_name
from trainer.host.self_command import own_command
from tui.drawing import format as fmt

_LINES_SHOWN = 16
_SHORT = 18  # rows below which the explanation is hidden


class FoldersTree(DirectoryTree):
    """Tree of the folders that are not hidden."""

    ICON_NODE = "+ "
    ICON_NODE_EXPANDED = "- "

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        return [path for path in paths if path.is_dir() and not path.name.startswith(".")]


class FolderScreen(ModalScreen[str | None]):
    """An input line for the folder over a tree of folders. Returns the path of the new configuration."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "back")]

    def __init__(self, runs_dir: Path) -> None:
        super().__init__(id="pick-folder")
        self._runs_dir = runs_dir
        self._inspection: subprocess.Popen[str] | None = None
        self.is_inspecting = self._cancelled = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide-dialog tall-dialog"):
            yield Static("A folder of your own images", classes="dialog-title")
            layouts = "class folders (cat/ dog/ ...), or train/ and test/ or val/ with class folders"
            yield Static(layouts, classes="hint")
            yield Input(placeholder="path, or choose below; enter inspects it", id="folder-path")
            yield FoldersTree(Path.cwd(), id="folder-tree")
            yield Static(id="folder-found")
            yield Static("enter: choose (tree) or inspect (path); tab switches, esc goes back", classes="hint")

    def on_resize(self, event: Resize) -> None:
        """Give all rows of a small terminal to the line and the tree."""
        self.set_class(event.size.height < _SHORT, "-short")

    def on_directory_tree_directory_selected(self, event: DirectoryTree.DirectorySelected) -> None:
        event.stop()
        self.query_one("#folder-path", Input).value = str(event.path)
        self.query_one("#folder-path", Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        folder = event.value.strip()
        if not folder:
            self._say("no folder yet: type a path, or choose one in the tree", problem=True)
        elif self.is_inspecting:
            self._say("the previous folder is still being inspected", problem=True)
        else:
            self.is_inspecting = True
            self._say(f"inspecting {folder}")
            self.run_worker(lambda: self._inspect(folder), thread=True)

    def action_cancel(self) -> None:
        self._cancelled = True
        if self._inspection is not None:
            self._inspection.terminate()
        if self.is_active:
            self.dismiss(None)

    def _inspect(self, folder: str) -> None:
        """Run the command `init` on another thread; its output is shown while it runs."""
        try:
            target = unused_path(Path(f"{plain_name(Path(folder).expanduser())}.yaml"))
            command = own_command("tui.cli", "init", "-o", str(target), "--runs-dir", str(self._runs_dir), "--", folder)
            self._inspection = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:  # no such user, a name too long, no more processes
            self.app.call_from_thread(self._on_inspected, 1, [f"{folder}: {error}"], Path())
            return
        if self._cancelled:  # before there was a process to end
            process.terminate()
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip())
            self.app.call_from_thread(self._say, "\n".join(lines[-_LINES_SHOWN:]))
        self.app.call_from_thread(self._on_inspected, process.wait(), lines, target)

    def _on_inspected(self, code: int, lines: list[str], target: Path) -> None:
        self._inspection, self.is_inspecting = None, False
        if not self.is_attached:
            return
        if code == 0:
            self.dismiss(str(target))
        else:
            self._say("\n".join(lines[-_LINES_SHOWN:]) or f"it ended with exit code {code}", problem=True)

    def _say(self, text: str, *, problem: bool = False) -> None:
        shown = Text(fmt.printable(text, keep="\n"), style="bold red" if problem else "")
        self.query_one("#folder-found", Static).update(shown)
