"""The dashboard: chooses the panes for the size of the terminal, and schedules their drawing."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.events import Resize
from textual.geometry import Size
from textual.screen import Screen

from tui.drawing.step_axis import AXES
from tui.state.display_state import DisplayState
from tui.state.keys import ActionContext
from tui.state.pages import OVERVIEW, PAGES
from tui.state.viewport import Viewport
from tui.widgets.class_accuracy import ClassPane
from tui.widgets.compact import CompactPane, SparkPane, TooSmallPane, WorstPane
from tui.widgets.curves import AccuracyPane, LossPane
from tui.widgets.events_list import EventsPane, FailurePane
from tui.widgets.header import Header
from tui.widgets.key_bar import KeyBar
from tui.widgets.lr_pane import LrPane
from tui.widgets.memory import MemoryPane
from tui.widgets.pane import Pane
from tui.widgets.scroll_pane import TablePane
from tui.widgets.step_pane import StepPane
from tui.widgets.time_budget import TimePane

LAYOUTS: tuple[tuple[str, int, int], ...] = (("wide", 100, 28), ("medium", 60, 20), ("small", 36, 10), ("tiny", 0, 0))
"""Name, minimum columns and minimum rows; the first that fits is used."""

_DRAW_FOR_S = 0.012  # longest time at a stretch: enough for a laptop's 120x40 screen, and no noticeable delay of a key
DRAW_SHARE = 0.0075  # share of a core for drawing while the run computes; all cores lose it, waiting for the slowest
_LONGEST_REST_S = 2.0  # longest pause after drawing some panes, however long that took
_PANNED = 0.25  # fraction of the visible range per key press
_BESIDE_CURVE = 10  # cells of a curve pane taken by border and labels
_CLOCK_EVERY_S = 1.0  # longest pause of panes that follow the clock: they are cheap, and show that the run is alive


def layout_for(width: int, height: int) -> str:
    """The layout of a terminal size."""
    return next(name for name, columns, rows in LAYOUTS if width >= columns and height >= rows)


class DashboardScreen(Screen[None]):
    """All panes of all layouts; the style sheet shows those of the current one."""

    AUTO_FOCUS = ""  # a border is lit once the user moves through the panes, not before

    BINDINGS: ClassVar[list[BindingType]] = [  # Textual's own would move the focus alone
        Binding("tab", "app.key('next_pane')", show=False),
        Binding("shift+tab", "app.key('previous_pane')", show=False),
    ]

    SHOWN: ClassVar[dict[str, tuple[str, ...]]] = {
        "wide": ("header", "loss", "accuracy", "lr", "memory", "classes", "time", "failure", "events", "keys"),
        "medium": ("header", "m-loss", "m-accuracy", "sparks", "worst", "failure", "events", "keys"),
        "small": ("compact", "keys"),
        "tiny": ("too-small",),
    }

    def __init__(self, scene: DisplayState, situation: Callable[[], ActionContext]) -> None:
        super().__init__()
        self._scene = scene
        self._situation = situation
        self._curve_actions: dict[str, Callable[[], None]] = {
            "zoom_in": partial(self._zoom_steps, 0.5),
            "zoom_out": partial(self._zoom_steps, 2.0),
            "pan_left": partial(self._pan_steps, -_PANNED),
            "pan_right": partial(self._pan_steps, _PANNED),
            "cursor_left": partial(self._move_cursor, -1),
            "cursor_right": partial(self._move_cursor, 1),
            "x_axis": self._next_axis,
        }
        self._layout_name = ""
        self._drawn: dict[str, float] = {}
        self._rest_until = 0.0
        self._versions: dict[str, int] = {}
        self._panes: dict[str, Pane] = {}
        self._zoomed: Pane | None = None

    def compose(self) -> ComposeResult:
        # Before any pane is styled and placed, so that this is done once on the way to the first frame.
        self._take_layout(self.app.size)
        yield Header(id="header")
        with Container(id="wide"):
            with Horizontal(id="curves"):
                yield LossPane(id="loss")
                yield AccuracyPane(id="accuracy")
            with Horizontal(id="lower"):
                with Vertical(id="left"):
                    with Horizontal(id="lr-memory"):
                        yield LrPane(id="lr")
                        yield MemoryPane(id="memory")
                    yield TimePane(id="time")
                yield ClassPane(id="classes")
        with Container(id="medium"):
            with Horizontal(id="m-curves"):
                yield LossPane(id="m-loss")
                yield AccuracyPane(id="m-accuracy")
            yield SparkPane(id="sparks")
            yield WorstPane(id="worst")
        yield CompactPane(id="compact")
        yield TooSmallPane(id="too-small")
        yield FailurePane(id="failure")
        yield EventsPane(id="events")
        yield KeyBar(self._situation, id="keys")

    def on_mount(self) -> None:
        """Paint all panes: they exist from here on, and draw themselves as soon as they have a place."""
        self._panes = {pane.id or "": pane for pane in self.query(Pane)}
        for pane in self._panes.values():
            pane.paint(self._scene)

    def on_resize(self, event: Resize) -> None:
        self._take_layout(event.size)

    def _take_layout(self, size: Size) -> None:
        name = layout_for(size.width, size.height)
        if name != self._layout_name:
            if name == "tiny":
                self.unzoom()
            self.remove_class(*(f"-{other}" for other, _, _ in LAYOUTS))
            self.add_class(f"-{name}")
            self._layout_name = name
            self._drawn.clear()

    def shown_panes(self) -> list[Pane]:
        if self._zoomed is not None:
            return [self._panes["header"], self._zoomed, self._panes["keys"]]
        return [self._panes[name] for name in self.SHOWN.get(self._layout_name, ()) if name in self._panes]

    def draw(self, now: float, interval_s: float, *, computing: bool) -> None:
        """Draw the panes that have changed and were drawn at least `interval_s` before `now` (monotonic), the oldest first.

        After `_DRAW_FOR_S` the rest waits for a later call, so that keys act. Several panes are drawn per call, because Textual's
        output costs more than most drawings. While the run is `computing`, no pane is drawn until the time spent here is back
        below `DRAW_SHARE`.
        """
        panes = self.shown_panes()
        if panes and not self._drawn:
            # A new layout appears in one piece.
            self._drawn = {pane.id or "": now for pane in panes}
            self.draw_now()
            return
        resting = computing and now < self._rest_until
        began, worked = time.perf_counter(), time.thread_time()
        for pane in sorted(panes, key=lambda pane: self._drawn.get(pane.id or "", 0.0)):
            name = pane.id or ""
            waited = now - self._drawn.get(name, 0.0)
            if waited < interval_s or time.perf_counter() - began >= _DRAW_FOR_S:
                break
            if resting and not (pane.follows_clock and waited >= _CLOCK_EVERY_S):
                continue
            if pane.follows_clock or self._versions.get(name) != self._scene.version:
                self._drawn[name], self._versions[name] = now, self._scene.version
                pane.paint(self._scene)
        rest = min((time.thread_time() - worked) / DRAW_SHARE, _LONGEST_REST_S)
        self._rest_until = max(self._rest_until, now + rest)

    def recolour(self) -> None:
        for pane in self._panes.values():
            pane.recolour()

    def draw_now(self, *names: str) -> None:
        """Draw some panes at once, after a key; all visible panes if no name is given."""
        for pane in self.shown_panes():
            if not names or pane.id in names:
                pane.paint(self._scene)

    def draw_next(self, *names: str) -> None:
        """Draw some panes in the next call of `draw`, so that those drawn now are on the screen before them."""
        self._rest_until = 0.0
        for name in names:
            self._drawn[name] = 0.0
            self._versions.pop(name, None)

    def toggle_zoom(self) -> None:
        """Show the focused pane alone, or all panes again."""
        if self._zoomed is not None:
            self.unzoom()
        elif isinstance(self.focused, Pane) and self.focused.page:
            self.show_page(self.focused.page)
        elif isinstance(self.focused, Pane):
            self._zoom(self.focused)

    def show_page(self, name: str) -> None:
        """Show a page alone; all panes for `overview` or if it is already alone; once more, all steps."""
        pane = None if name == OVERVIEW.name else self._pane_of_page(name)
        if pane is None and self._zoomed is None:
            self._scene.viewport = Viewport()
            self.redraw_step_panes()
        elif pane is None or pane is self._zoomed:
            self.unzoom()
        else:
            self._zoom(pane)

    def show_next_page(self, by: int) -> bool:
        """Switch from the pane shown alone to the one `by` pages further; returns whether a pane is shown alone."""
        if self._zoomed is None:
            return False
        names = [page.name for page in PAGES[1:]]
        here = names.index(self._zoomed.page) if self._zoomed.page in names else 0
        self.show_page(names[(here + by) % len(names)])
        return True

    def _pane_of_page(self, name: str) -> Pane:
        """The pane of a page. Those outside the overview are imported and created on first use, not before the first frame."""
        if name in ("loss", "accuracy", "lr", "memory"):
            return self._panes[name]
        from tui.widgets.class_table import ClassTable
        from tui.widgets.confusion import ConfusionPane
        from tui.widgets.layers import LayersPane
        from tui.widgets.network import NetworkPane
        from tui.widgets.pictures import MistakesPane, TrainingImagesPane

        kinds: dict[str, type[Pane]] = {
            "classes": ClassTable, "confusion": ConfusionPane, "mistakes": MistakesPane, "training": TrainingImagesPane,
            "network": NetworkPane, "layers": LayersPane,
        }  # fmt: skip
        pane_id = f"page-{name}"
        if pane_id not in self._panes:
            self._panes[pane_id] = pane = kinds[name](id=pane_id, classes="page")
            self.mount(pane, before="#keys")
            pane.paint(self._scene)
        return self._panes[pane_id]

    def _zoom(self, pane: Pane) -> None:
        self.unzoom()
        self._zoomed = pane
        self.add_class("-zoom")
        for node in pane.ancestors_with_self:
            if node is self:
                break
            node.add_class("zoomed")
        if isinstance(pane, TablePane):
            pane.rewind()
        pane.focus()
        self._drawn.clear()

    def unzoom(self) -> None:
        if self._zoomed is not None:
            self._zoomed = None
            self.remove_class("-zoom")
            self.query(".zoomed").remove_class("zoomed")
            self._drawn.clear()

    def action_curves(self, name: str) -> None:
        """Run an action of `tui.state.keys`."""
        self._curve_actions[name]()

    def _zoom_steps(self, factor: float) -> None:
        """Show fewer or more steps, around the cursor or the newest step."""
        if self._steps_per_column():
            scene = self._scene
            around = scene.view.step if scene.viewport.cursor is None else scene.viewport.cursor
            scene.viewport.zoom(factor, around, scene.total)
            self.redraw_step_panes()

    def _pan_steps(self, share: float) -> None:
        if self._steps_per_column():
            self._scene.viewport.pan(share, self._scene.total)
            self.redraw_step_panes()

    def _move_cursor(self, columns: int) -> None:
        steps = self._steps_per_column()
        if steps:
            scene = self._scene
            scene.viewport.move_cursor(columns * max(steps, 1.0), float(scene.view.step), scene.total)
            self.redraw_step_panes()

    def _next_axis(self) -> None:
        self._scene.axis = AXES[(AXES.index(self._scene.axis) + 1) % len(AXES)]
        self.redraw_step_panes()

    def on_step_pane_viewport_changed(self, event: StepPane.ViewportChanged) -> None:
        event.stop()
        self.redraw_step_panes()

    def redraw_step_panes(self) -> None:
        """Redraw at once every pane that shows steps or follows the cursor."""
        self._scene.version += 1
        self.draw_now(*(pane.id or "" for pane in self.shown_panes() if pane.follows_cursor))

    def _steps_per_column(self) -> float:
        """Steps per cell of a curve; one epoch without a curve, 0 if nothing depends on a step."""
        panes = [pane for pane in self.shown_panes() if pane.follows_cursor]
        widths = [pane.size.width for pane in panes if isinstance(pane, StepPane)]
        if not widths:
            return float(self._scene.view.steps_per_epoch) if panes else 0.0
        left, right = self._scene.viewport.edges(self._scene.total)
        return (right - left) / max(max(widths) - _BESIDE_CURVE, 1)
