"""The list of runs: the status of each, the curves of several in one plot, and keys to open, resume and delete them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from trainer.errors import RunError
from trainer.run.folder.delete import delete_run
from trainer.run.folder.run_dir import RunDir
from trainer.run.view.overview import RunOverview, RunsFolder
from trainer.run.view.run_view import RunView
from tui.app.screens import LIST_OF_RUNS
from tui.app.screens.dashboard import layout_for
from tui.app.screens.dialogs import DeleteScreen
from tui.app.screens.held_key_guard import KEY_REPEAT_DELAY_S, HeldKeyGuard
from tui.drawing import format as fmt
from tui.drawing.glyphs import choose_glyphs
from tui.state.compared_run import COLOURS, Compared
from tui.state.display_state import DisplayState
from tui.state.keys import LIST_ACTIONS
from tui.state.runs_reader import RunsReader
from tui.widgets.comparison import ComparisonPane
from tui.widgets.key_bar import key_line
from tui.widgets.run_rows import RunRows
from tui.widgets.runs_table import WIDTHS, cells, size

if TYPE_CHECKING:
    from tui.app.runs_list import RunsList

_POLL_EVERY_S = 0.25
_FIRST_POLLS_S = 0.05  # polling interval until there is a first row
_MESSAGE_POLLS = 16  # number of polls for which a message is shown: four seconds
_AGES_EVERY = 12  # polls between two redraws when no run has changed, since ages change
_KEYS = key_line(*((action.key, action.label) for action in LIST_ACTIONS))


class RunsScreen(ModalScreen[None]):
    """A table of all runs over two plots. Modal, so that the keys of a dashboard below it do nothing here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.name, action.label, tooltip=action.help) for action in LIST_ACTIONS
    ]

    def __init__(
        self, folder: RunsFolder, owner: RunsList, *, clock: Callable[[], float], here: RunDir | None,
        marked: tuple[Compared, ...] = (),
    ) -> None:  # fmt: skip
        """`here` is the run of this process, if it has one; `marked` are the runs that are compared already."""
        super().__init__(id=LIST_OF_RUNS)
        self._folder = folder
        self._owner = owner
        self._clock = clock
        self._here = here
        self._here_path = None if here is None else here.path.resolve()
        self._reader: RunsReader | None = None
        self._runs: dict[str, RunOverview] = {}
        self._marked = [str(one.run.run_dir.path) for one in marked]
        self._listed: list[RunOverview] = []
        self._counts = self._title = ""
        self._polls = 0
        self._scene = DisplayState(view=RunView(), glyphs=choose_glyphs())
        self._polls_left = 0
        self._key_guard = HeldKeyGuard()

    def compose(self) -> ComposeResult:
        yield Static(self._titled("reading"), id="runs-title")
        yield RunRows(self._cells, id="runs-table")
        with Horizontal(id="runs-plots"):
            yield ComparisonPane("loss", id="runs-loss")
            yield ComparisonPane("accuracy", id="runs-accuracy")
        yield Static(_KEYS, id="runs-keys")

    def on_mount(self) -> None:
        self._reader = RunsReader(self._folder)
        self._polling = self.set_interval(_FIRST_POLLS_S, self._poll)

    def on_unmount(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def on_resize(self, event: Resize) -> None:
        layout = layout_for(event.size.width, event.size.height)
        for name in WIDTHS:
            self.set_class(name == layout, f"-{name}")
        self._table.columns = WIDTHS[layout]
        self._table.paint(self._scene)

    @property
    def _table(self) -> RunRows:
        return self.query_one("#runs-table", RunRows)

    def _poll(self) -> None:
        assert self._reader is not None
        self._polls += 1
        if self._polls_left:
            self._polls_left -= 1
            if not self._polls_left:
                self._say(_KEYS)
        runs = self._reader.runs
        if runs is not None and runs is not self._listed:
            if not self._runs:
                self._polling.stop()
                self._polling = self.set_interval(_POLL_EVERY_S, self._poll)
            self._show(runs)
        elif self._polls % _AGES_EVERY == 0:
            self._table.paint(self._scene)
        self._write_title(self._reader)

    def _show(self, runs: list[RunOverview]) -> None:
        self._listed, self._runs = runs, {str(run.run_dir.path): run for run in runs}
        odd = sum(run.bad_records > 0 for run in runs)
        skipped = f", {odd} with skipped log lines (!)" if odd else ""
        counts = f"{len(runs)}, {sum(run.is_training for run in runs)} in training{skipped}"
        self._counts = counts if runs else "none yet; start one with: r18-tui digits"
        self._marked = [key for key in self._marked if key in self._runs]
        self._table.set_runs(runs, self._is_here)
        self._table.paint(self._scene)
        self.call_after_refresh(self._plot)  # what it needs is imported after the first rows are on the screen

    def _write_title(self, reader: RunsReader) -> None:
        runs = self._listed
        if reader.error:
            text = reader.error
        elif reader.unread or reader.runs is None:
            text = f"reading, {len(runs):,} of {len(runs) + reader.unread:,}" if runs else "reading"
        else:
            text = self._counts
        if text != self._title:
            self._title = text
            self.query_one("#runs-title", Static).update(self._titled(text))

    def _cells(self, run: RunOverview) -> dict[str, tuple[str, str]]:
        mark = self._mark_of(str(run.run_dir.path))
        return cells(run, self._clock(), mark=mark, here=self._is_here(run))

    def _plot(self) -> None:
        selected = self._selected_key()
        compared = self._compared(self._marked or ([selected] if selected else []))
        for pane in self.query(ComparisonPane):
            pane.compared = compared
            pane.paint(self._scene)

    def _compared(self, keys: list[str]) -> tuple[Compared, ...]:
        return tuple(
            Compared(label=str(number), style=style, run=self._runs[key])
            for number, (key, style) in enumerate(zip(keys, COLOURS, strict=False), 1)
            if key in self._runs
        )

    def _titled(self, text: str) -> Text:
        # The folder comes last, since it may be longer than the line.
        return Text(f" Runs  ·  {fmt.printable(f'{text}  ·  {self._folder.path}')}", no_wrap=True)

    def _say(self, text: Text) -> None:
        self.query_one("#runs-keys", Static).update(text)

    def _show_message(self, text: str) -> None:
        self._polls_left = _MESSAGE_POLLS
        self._say(Text(f" {fmt.printable(text)}", style="bold"))

    def _mark_of(self, key: str) -> tuple[str, str]:
        if key not in self._marked:
            return "", "text"
        number = self._marked.index(key)
        return str(number + 1), COLOURS[number]

    def _is_here(self, run: RunOverview) -> bool:
        here, path = self._here, run.run_dir.path
        # Names first: resolving thousands of paths would take longer than drawing them.
        return here is not None and (path.name == here.name or path.is_symlink()) and path.resolve() == self._here_path

    def _selected_key(self) -> str:
        selected = self._table.selected
        return str(selected.run_dir.path) if selected is not None else ""

    def _changeable(self) -> RunOverview | None:
        """The selected run; None if there is none, or, with a message, if it cannot be changed here."""
        if self._owner.refusal:
            self._show_message(self._owner.refusal)
            return None
        return self._table.selected

    def on_run_rows_moved(self) -> None:
        """Update the plots: without marks they follow the cursor, unless another key is waiting."""
        if not self._marked:
            self.call_after_refresh(self._plot)

    def on_run_rows_chosen(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        run = self._table.selected
        if run is not None and self.is_active:  # a second enter may have been on its way
            self._owner.open_run(run)

    def action_mark(self) -> None:
        key = self._selected_key()
        if key in self._marked:
            self._marked.remove(key)
        elif len(self._marked) == len(COLOURS):
            self._show_message(f"one plot shows at most {len(COLOURS)} runs")
        elif key:
            self._marked.append(key)
        self._table.paint(self._scene)
        self._plot()

    def action_resume(self) -> None:
        run = self._changeable()
        if run is None:
            return
        if self._here is not None and not self._key_guard.is_over(KEY_REPEAT_DELAY_S):  # the key that opened it is held
            self._show_message("press r once more to resume the run")
            return
        if run.live:
            self._show_message("a process owns this run; enter opens it")
        elif run.status == "finished":
            self._show_message(f"all its epochs are done; for more: {run.run_dir.resume_command()} train.epochs=N")
        elif refusal := self._owner.resume_run(run):
            self._show_message(refusal)

    def action_delete(self) -> None:
        run = self._changeable()
        if run is not None and run.live:
            self._show_message("a process owns this run; leave or stop it first")
        elif run is not None:
            screen = DeleteScreen(str(run.run_dir.path), size(run))
            self.app.push_screen(screen, lambda yes: self._delete(run) if yes else None)

    def action_leave(self) -> None:
        read = self._reader is not None and self._reader.runs is not None
        self._owner.leave_list(self._compared(self._marked) if read else None)

    def _delete(self, run: RunOverview) -> None:
        try:
            delete_run(run.run_dir)
        except RunError as error:
            self._show_message(str(error))
        else:
            self._show_message(f"deleted {run.run_dir.path}")
        assert self._reader is not None
        self._reader.read_now()
