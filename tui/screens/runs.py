"""The list of runs: how each stands, the curves of several in one plot, and ways to open, resume and delete them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, cast

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from trainer.errors import RunError
from trainer.run.deletion import delete_run
from trainer.run.overview import RunOverview, RunsFolder
from trainer.run.store import RunDir
from trainer.run.view import RunView
from tui import format as fmt
from tui.actions import LIST_ACTIONS
from tui.compared import COLOURS, Compared
from tui.glyphs import choose_glyphs
from tui.runs_reader import RunsReader
from tui.runs_table import WIDTHS, cells, heading, size
from tui.scene import Scene
from tui.screens import LIST_OF_RUNS
from tui.screens.dashboard import layout_for
from tui.screens.dialogs import DeleteScreen
from tui.widgets.comparison import ComparisonPane

_LOOK_EVERY_S = 0.25
_REMARK_LOOKS = 16
"""Looks for which a remark stays: four seconds."""


class ListOwner(Protocol):
    """The application, as far as the list knows it.

    Attributes:
        palette: Styles by the words that rows use.
    """

    palette: dict[str, Style]

    @property
    def list_refusal(self) -> str:
        """Why no run of the list can be changed; empty where they can."""

    def open_run(self, run: RunOverview) -> None:
        """Show a run."""

    def resume_run(self, run: RunOverview) -> str:
        """Go on with a run; returns why that cannot be, or nothing."""

    def leave_list(self, marked: tuple[Compared, ...] | None) -> None:
        """Back to what was there before the list, with the curves of some runs below its own; None leaves these as they are."""


class RunsScreen(ModalScreen[None]):
    """A table of all runs over two plots. Modal, so that the keys of a dashboard below it do nothing here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.name, action.label, tooltip=action.help) for action in LIST_ACTIONS
    ]

    def __init__(
        self, folder: RunsFolder, *, clock: Callable[[], float], here: RunDir | None, marked: tuple[Compared, ...] = ()
    ) -> None:
        """List a folder.

        Args:
            folder: Of runs.
            clock: Unix seconds.
            here: The run of this process, if it has one.
            marked: Runs that are compared already.
        """
        super().__init__(id=LIST_OF_RUNS)
        self._folder = folder
        self._clock = clock
        self._here = here
        self._reader: RunsReader | None = None
        self._runs: dict[str, RunOverview] = {}
        self._marked = [str(one.run.run_dir.path) for one in marked]
        self._columns: dict[str, int] = {}
        self._shown: dict[str, dict[str, Text]] = {}
        self._scene = Scene(view=RunView(), glyphs=choose_glyphs())
        self._looks_left = 0

    def compose(self) -> ComposeResult:
        """Title, table, plots, keys."""
        yield Static(self._titled("reading"), id="runs-title")
        yield DataTable(id="runs-table", cursor_type="row", zebra_stripes=False)
        with Horizontal(id="runs-plots"):
            yield ComparisonPane("loss", id="runs-loss")
            yield ComparisonPane("accuracy", id="runs-accuracy")
        yield Static(_keys(), id="runs-keys")

    def on_mount(self) -> None:
        """Begin to read."""
        self._reader = RunsReader(self._folder)
        self.set_interval(_LOOK_EVERY_S, self._look)

    def on_unmount(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.close()

    def on_resize(self, event: Resize) -> None:
        """Show as much as fits."""
        layout = layout_for(event.size.width, event.size.height)
        for name in WIDTHS:
            self.set_class(name == layout, f"-{name}")
        if WIDTHS[layout] != self._columns:
            self._columns = WIDTHS[layout]
            self._fill(self._shown)

    # What is shown ----------------------------------------------------------------------------------------------------

    @property
    def _table(self) -> DataTable[Text]:
        return cast("DataTable[Text]", self.query_one("#runs-table", DataTable))

    def _look(self) -> None:
        assert self._reader is not None
        if self._looks_left:
            self._looks_left -= 1
            if not self._looks_left:
                self._say(_keys())
        if self._reader.error:
            self._title(self._reader.error)
        elif self._reader.runs is not None:
            self._show(self._reader.runs)

    def _show(self, runs: list[RunOverview]) -> None:
        self._runs = {str(run.run_dir.path): run for run in runs}
        self._marked = [key for key in self._marked if key in self._runs]
        trained = sum(run.trained for run in runs)
        self._title(f"{len(runs)}, {trained} in training" if runs else "none yet; start one with: r18-tui digits")
        now = self._clock()
        palette = self._owner.palette
        wanted = {
            key: cells(run, now, palette, mark=self._mark_of(key), here=self._is_here(run))
            for key, run in self._runs.items()
        }
        if list(wanted) != list(self._shown):
            self._fill(wanted)
        else:
            self._update(wanted)
        self._shown = wanted
        self._plot()

    def _fill(self, wanted: dict[str, dict[str, Text]]) -> None:
        table, selected = self._table, self._selected_key() or self._key_of_here()
        table.clear(columns=True)
        for column, width in self._columns.items():
            table.add_column(heading(column), key=column, width=width)
        for key, row in wanted.items():
            table.add_row(*(row[column] for column in self._columns), key=key)
        if selected in wanted:
            table.move_cursor(row=list(wanted).index(selected))

    def _update(self, wanted: dict[str, dict[str, Text]]) -> None:
        for key, row in wanted.items():
            for column in self._columns:
                if self._shown[key][column] != row[column]:
                    self._table.update_cell(key, column, row[column])

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

    def _title(self, text: str) -> None:
        self.query_one("#runs-title", Static).update(self._titled(text))

    def _titled(self, text: str) -> Text:
        # The folder comes last, since it may be longer than the line.
        return Text(f" Runs  ·  {fmt.literal(f'{text}  ·  {self._folder.path}')}", no_wrap=True)

    def _say(self, text: Text) -> None:
        self.query_one("#runs-keys", Static).update(text)

    def _remark(self, text: str) -> None:
        self._looks_left = _REMARK_LOOKS
        self._say(Text(f" {fmt.literal(text)}", style="bold"))

    def _mark_of(self, key: str) -> tuple[str, str]:
        if key not in self._marked:
            return "", "text"
        number = self._marked.index(key)
        return str(number + 1), COLOURS[number]

    def _is_here(self, run: RunOverview) -> bool:
        return self._here is not None and run.run_dir.path.resolve() == self._here.path.resolve()

    def _key_of_here(self) -> str:
        """The run that the list was opened from."""
        return next((key for key, run in self._runs.items() if self._is_here(run)), "")

    def _selected_key(self) -> str:
        table = self._table
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def _selected(self) -> RunOverview | None:
        return self._runs.get(self._selected_key())

    def _changeable(self) -> RunOverview | None:
        """The selected run, unless none may be changed here."""
        if self._owner.list_refusal:
            self._remark(self._owner.list_refusal)
            return None
        return self._selected()

    # Keys -------------------------------------------------------------------------------------------------------------

    def on_data_table_row_highlighted(self) -> None:
        """Without marks the plots follow the cursor."""
        self._plot()

    def on_data_table_row_selected(self) -> None:
        """Enter, or a click on the row that has the cursor."""
        self.action_open()

    def action_open(self) -> None:
        """Open the run."""
        run = self._selected()
        if run is not None and self.is_active:  # a second enter may have been on its way
            self._owner.open_run(run)

    def action_mark(self) -> None:
        """Take the run into the comparison, or out of it."""
        key = self._selected_key()
        if key in self._marked:
            self._marked.remove(key)
        elif len(self._marked) == len(COLOURS):
            self._remark(f"no more than {len(COLOURS)} runs can be told apart in one plot")
        elif key:
            self._marked.append(key)
        self._show(list(self._runs.values()))

    def action_resume(self) -> None:
        """Go on with the run."""
        run = self._changeable()
        if run is None:
            return
        if run.live:
            self._remark("a process holds this run; enter opens it")
        elif run.status == "finished":
            self._remark(f"all its epochs are done; for more: {run.run_dir.resume_command()} train.epochs=N")
        else:
            refusal = self._owner.resume_run(run)
            if refusal:
                self._remark(refusal)

    def action_delete(self) -> None:
        """Ask, then delete."""
        run = self._changeable()
        if run is None:
            return
        if run.live:
            self._remark("a process holds this run; leave or stop it first")
            return
        self.app.push_screen(
            DeleteScreen(str(run.run_dir.path), size(run)), lambda yes: self._delete(run) if yes else None
        )

    def interrupt(self) -> None:
        """As `q`."""
        self.action_leave()

    def action_leave(self) -> None:
        """Back."""
        read = self._reader is not None and self._reader.runs is not None
        self._owner.leave_list(self._compared(self._marked) if read else None)

    def _delete(self, run: RunOverview) -> None:
        try:
            delete_run(run.run_dir)
        except RunError as error:
            self._remark(str(error))
        else:
            self._remark(f"deleted {run.run_dir.path}")
        assert self._reader is not None
        self._reader.read_now()

    @property
    def _owner(self) -> ListOwner:
        return cast(ListOwner, self.app)


def _keys() -> Text:
    parts = [(action.key, f" {action.label}   ") for action in LIST_ACTIONS]
    return Text.assemble(" ", *(piece for key, label in parts for piece in ((key, "bold"), (label, "dim"))))
