"""The application: shows one run or the list of runs and sends the commands of its keys. It never waits for a trainer."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent
from textual.screen import Screen
from textual.theme import Theme
from textual.timer import Timer

from trainer.errors import EXIT_OK
from trainer.host.safe_text import printable
from trainer.run.control import commands as cmd
from trainer.run.folder.run_dir import default_runs_dir
from trainer.run.status import LIVE_STATES
from trainer.run.view.run_view import RunView
from trainer.session.error_report import log_traceback
from tui.app.run_controller import RunController
from tui.app.run_keys import RunKeys
from tui.app.runs_list import RunsList
from tui.app.screens import LIST_OF_RUNS, MESSAGES
from tui.app.screens.dashboard import DashboardScreen
from tui.app.terminal_app import INTERRUPT, TerminalApp
from tui.drawing.themes import palette
from tui.state.keys import ACTIONS, LIST_ACTIONS
from tui.state.pages import PAGES
from tui.state.run_port import RunPort
from tui.state.ui_settings import UiSettings
from tui.terminal.private_terminal import is_hung_up, terminal_size

_LONGEST_PUMP_S = 0.2  # longest time between two polls of the run's events (0.4 ms each): a barely visible delay
_CALM_PUMP_S = 1.0  # the same while nothing happens: each poll wakes the processor
_CALM_AFTER_S = 5.0  # time at rest before polling slows down: no key, no events; longer than a message is shown
_READ_ON_AFTER_S = 0.001  # delay of a timer: `call_later` would run before everything that waits, keys included

_START_AFTER_S = 0.02
_HELP_AFTER_S = 2.0  # delay after the first frame; preparing the help takes some 60 ms of this thread
_CHECK_EVERY_S = 0.9  # least time between two checks of terminal and trainer; less than `_CALM_PUMP_S`


class DashboardApp(TerminalApp[int]):
    """Shows a run or the list of runs. `detached`: the user left the screen, or lost it, while the run should continue."""

    CSS_PATH = "dashboard.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        INTERRUPT,
        *(
            Binding(key.keys, key.action, key.label, tooltip=key.help, id=key.name, show=False)
            for key in (*ACTIONS, *PAGES)
        ),
    ]

    def __init__(
        self, port: RunPort | None, ui: UiSettings, *, runs_dir: Path | None = None, clock: Callable[[], float] = time.time,
        input_fd: int | None = None, hung_up: Callable[[], bool] = lambda: False, read_only: bool = False,
    ) -> None:  # fmt: skip
        """Show a run, or the list of runs where `port` is None.

        `runs_dir` is the folder listed, by default that of the run, else the usual one.

        With `read_only` the runs of the list cannot be controlled, resumed or deleted either. `hung_up` returns whether a signal,
        or the death of the process that the shell started, has shown that the terminal is gone; `input_fd` is watched, too.
        """
        super().__init__(ui.theme)
        size = terminal_size(input_fd) if input_fd is not None else None
        if size is not None:
            # Textual asks for it only when its driver runs; until then Rich, imported before the terminal was
            # moved, would find 80x25, and all would be laid out twice.
            self.console.size = size
        self._printed_to = sys.stdout, sys.stderr
        self.detached = False
        home = None if port is None else RunController(port)
        folder = runs_dir or (default_runs_dir() if port is None else port.run_dir.path.parent)
        self.runs = RunsList(self, home, folder, clock=clock, read_only=read_only)
        self.keys = RunKeys(self, self.runs)
        self._ui = ui
        self._reading_on = self._has_drawn = False
        self._pump_s = min(_LONGEST_PUMP_S, ui.redraw_every_s)
        self._pumping: Timer | None = None
        self._calm = False
        self._last_activity_s = self._last_check_s = time.monotonic()
        self._clock = clock
        self._input_fd = input_fd
        self._hung_up = hung_up
        self.palette = palette(self.get_css_variables())

    @cached_property
    def picture_protocol(self) -> str:
        """Protocol for drawing pictures, one of `tui.drawing.pixel_pictures.protocol_for`."""
        from tui.drawing.pixel_pictures import BLOCKS, protocol_for  # not before the first frame

        if self._ui.low_bandwidth:
            return BLOCKS
        return protocol_for(os.environ, all_colours=self.console.color_system == "truecolor")

    @property
    def first_view(self) -> RunView:
        """State of the run that the application was started with; an empty view without a run."""
        return RunView() if self.runs.home is None else self.runs.home.view

    @property
    def current(self) -> RunController:
        """The run on the screen, or under the list."""
        return self.runs.current

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow a dashboard's actions only while a dashboard is on the screen."""
        return action not in ("key", "page") or isinstance(self.screen, DashboardScreen)

    def _theme_changed(self, _theme: Theme) -> None:
        self.palette = palette(self.get_css_variables())
        for run in self.runs.open:
            run.screen.recolour()

    def get_default_screen(self) -> Screen[None]:
        """The dashboard itself, so that it is the first frame."""
        return self.runs.new_screen() if self.runs.home is None else self.runs.home.screen

    def on_mount(self) -> None:
        # Textual captures what is printed, and drops it. It belongs in the log, like the output of workers and native code.
        sys.stdout, sys.stderr = self._printed_to
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        self._pumping = self.set_interval(self._pump_s, self._pump)
        self._pump()
        # Importing PyTorch keeps both cores busy for seconds; the first frame goes before it.
        self.call_after_refresh(self.set_timer, _START_AFTER_S, self._first_frame_is_drawn)

    def _first_frame_is_drawn(self) -> None:
        self._has_drawn = True
        if self.runs.home is None:
            return
        self.set_timer(_HELP_AFTER_S, self._prepare_help)
        if self.runs.home.port.thread is not None:
            self.runs.home.port.thread.start()

    def _prepare_help(self) -> None:
        """Lay out the help off screen, so that its key opens it at once."""
        self._get_screen(self.keys.help_screen)

    def _pump(self) -> None:
        if not self.screen_stack:  # an application that closes loses its screens before its timers
            return
        now = time.monotonic()
        if now - self._last_check_s >= _CHECK_EVERY_S:  # a timer of its own would wake the processor once more
            self._last_check_s = now
            self._check_terminal_and_trainers()
        thread = self.runs.home.port.thread if self.runs.home is not None else None
        ended = thread is not None and not thread.alive
        versions = [run.scene.version for run in self.runs.open]
        for run in self.runs.open:
            if run.read(self._clock()) and self._ui.bell:
                self._ring(run)
        self._adjust_polling(news=versions != [run.scene.version for run in self.runs.open])
        if any(run.scene.behind for run in self.runs.open):
            if not self._reading_on:  # the rest of a long history follows after the keys that were pressed meanwhile
                self._reading_on = True
                self.set_timer(_READ_ON_AFTER_S, self._continue_reading)
            return
        if self._has_drawn and not gc.isenabled():
            # Off since the start of the program, where it would scan only modules, and a history that is being read.
            gc.enable()
        shown = self.runs.shown
        if shown is not None and self.screen.id not in (LIST_OF_RUNS, MESSAGES):
            # Half a tick less, so that a pane is drawn in the tick that is due and not in the one after.
            interval_s = self._ui.redraw_every_s - self._pump_s / 2
            shown.screen.draw(time.monotonic(), interval_s, computing=not shown.scene.at_rest)
            self.keys.offer_remedies()
            self.keys.show_lr_range()
        if ended:
            assert thread is not None
            self.exit(thread.exit_code)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, InputEvent):
            self._adjust_polling(news=True)
        await super().on_event(event)

    def _adjust_polling(self, *, news: bool) -> None:
        """Poll less often once all runs are at rest and no key is pressed."""
        if self._pumping is None:
            return
        now = time.monotonic()
        self._last_activity_s = now if news else self._last_activity_s
        rest = all(run.at_rest for run in self.runs.open)
        calm = rest and now - self._last_activity_s >= _CALM_AFTER_S
        if calm is not self._calm:
            self._calm = calm
            self._pumping.stop()
            self._pumping = self.set_interval(_CALM_PUMP_S if calm else self._pump_s, self._pump)

    def _ring(self, run: RunController) -> None:
        """Ring the bell and send a desktop notification (OSC 9), which some terminals show and others ignore."""
        self.bell()
        if self._driver is not None:
            text = printable(f"r18-tui: {run.port.run_dir.name} {run.scene.word}")
            self._driver.write(f"\x1b]9;{text}\x07")

    def _continue_reading(self) -> None:
        self._reading_on = False
        self._pump()

    def _check_terminal_and_trainers(self) -> None:
        if self._hung_up() or (self._input_fd is not None and is_hung_up(self._input_fd)):
            self._exit_and_continue("the terminal was lost")
            return
        for run in self.runs.open:
            run.follow_trainer()

    def _exit_and_continue(self, how: str) -> None:
        """Leave the screen; the run continues and records when that happened."""
        home = self.runs.home
        if home is not None and home.port.thread is not None and home.scene.state in LIVE_STATES:
            home.port.control.send(cmd.AddNote(text=how))
        self.detached = True
        self.exit(EXIT_OK)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Fill the palette: the actions available now on the screen below it, and the themes."""
        if isinstance(screen, DashboardScreen):
            now = self.current.situation()
            for action in ACTIONS:
                if not action.refusal(now):
                    yield self._command(screen, action.label.capitalize(), action.help, action.action)
            for page in PAGES:
                yield self._command(screen, f"Show {page.label}", page.help, page.action)
        elif screen.id == LIST_OF_RUNS:
            for choice in LIST_ACTIONS:
                yield self._command(screen, choice.label.capitalize(), choice.help, f"screen.{choice.name}")
        yield SystemCommand("Theme", "Change the colours.", self.action_change_theme)

    def _command(self, screen: Screen[Any], title: str, help_text: str, action: str) -> SystemCommand:
        async def act() -> None:
            if self.screen is screen:
                await self.run_action(action)

        return SystemCommand(title, help_text, lambda: self.call_later(act))

    def action_key(self, name: str) -> None:
        """Run an action of `tui.state.keys`."""
        if name == "leave":
            self.keys.leave(self._detach)
        elif name == "detach":
            self._detach()
        else:
            self.keys.actions[name]()

    def action_page(self, name: str) -> None:
        self.keys.show_page(name)

    def action_interrupt(self) -> None:
        if isinstance(self.screen, DashboardScreen):
            self.action_key("leave")
        else:
            super().action_interrupt()

    def _detach(self) -> None:
        if self.current.refuses("detach"):
            return
        if self.current is self.runs.home:
            self._exit_and_continue("detached")
        else:
            self.runs.leave_run()

    def _handle_exception(self, error: Exception) -> None:
        """Close the dashboard on one of its own errors, not the run; the traceback goes to log.txt, not over the screen."""
        if self.runs.open:
            log_traceback(self.runs.open[0].port.run_dir, error)
        super()._handle_exception(error)
