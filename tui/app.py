"""The application: folds the run's events, draws the dashboard, sends commands. It never waits for the trainer."""

from __future__ import annotations

import gc
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from trainer.errors import EXIT_OK
from trainer.failures import log_traceback
from trainer.run import commands as cmd
from trainer.run.commands import Command, UndeliverableError
from trainer.run.events import decode
from trainer.run.status import RunState
from trainer.run.view import SMOOTHING, RunView
from tui.actions import ACTIONS, BY_NAME, Situation
from tui.glyphs import choose_glyphs
from tui.scene import Scene
from tui.screens.dashboard import DashboardScreen
from tui.settings import UiSettings
from tui.source import Port
from tui.terminal import terminal_size
from tui.themes import THEMES, colours_beside, palette, theme_for
from tui.widgets.key_bar import KeyBar

_LONGEST_PUMP_S = 0.2
"""Longest time between two looks at what the run has published: a delay that is hardly seen. With Textual's timer a look takes
some 0.4 ms."""
_AT_REST = (RunState.PAUSED, RunState.FINISHED, RunState.FAILED)
_REMARK_S = 4.0
_START_AFTER_S = 0.02
_LOOK_AROUND_S = 1.0
"""Time between two looks at whether the terminal and the trainer are still there."""


@dataclass(frozen=True)
class _Pending:
    command_id: str
    word: str


class DashboardApp(App[int]):
    """The dashboard over one run.

    Attributes:
        crash: The exception that ended the application, if one did.
        detached: Whether the user left the screen, or lost the terminal, while the run was to go on.
    """

    CSS_PATH = "dashboard.tcss"
    TITLE = "r18-tui"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.name, action.label, tooltip=action.help, id=action.name, show=False)
        for action in ACTIONS
    ]

    def __init__(
        self, port: Port, ui: UiSettings, *, clock: Callable[[], float] = time.time,
        input_fd: int | None = None, hung_up: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """Show a run.

        Args:
            port: The run.
            ui: Theme and redraw rate.
            clock: Unix seconds.
            input_fd: Of the terminal, watched for a hang-up.
            hung_up: Whether a signal, or the death of the process that the shell knows, says that the terminal is gone.
        """
        super().__init__()
        size = terminal_size(input_fd) if input_fd is not None else None
        if size is not None:
            # Textual asks for it only when its driver runs, and its library Rich, imported before the terminal was moved, would
            # find 80x25 until then: all would be laid out twice.
            self.console.size = size
        self.port = port
        self.crash: BaseException | None = None
        self.detached = False
        self.view = RunView()
        self.scene = Scene(view=self.view, glyphs=choose_glyphs(), resume_command=port.run_dir.resume_command())
        self._follow_trainer()
        self._ui = ui
        self._pump_s = min(_LONGEST_PUMP_S, 1.0 / ui.redraw_hz)
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._remark_until = 0.0
        self._input_fd = input_fd
        self._hung_up = hung_up
        self._last_state = RunState.LOADING
        self._dashboard = DashboardScreen(self.scene, self.situation)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = theme_for(ui.theme)
        self.palette = palette(self.get_css_variables())

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Colours of the themes that are not our own."""
        return colours_beside(self.current_theme)

    def _theme_changed(self, _theme: Theme) -> None:
        self.palette = palette(self.get_css_variables())
        self._dashboard.recolour()

    def get_default_screen(self) -> Screen[None]:
        """The dashboard is the first screen, so that the first frame is the dashboard."""
        return self._dashboard

    def on_mount(self) -> None:
        """Start following the run."""
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        self.set_interval(self._pump_s, self._pump)
        self.set_interval(_LOOK_AROUND_S, self._look_around)
        self._pump()
        # Importing PyTorch takes seconds of both cores; the first frame goes before it.
        self.call_after_refresh(self.set_timer, _START_AFTER_S, self._first_frame_is_drawn)

    def _first_frame_is_drawn(self) -> None:
        gc.enable()  # off since the start of the program, where it would only look at modules
        if self.port.thread is not None:
            self.port.thread.start()

    # Following the run ------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        thread = self.port.thread
        ended = thread is not None and not thread.alive
        self._read()
        self.scene.now = self._clock()
        state = self.scene.state
        if state is not self._last_state:
            self._state_changed(state)
        if self._remark_until and time.monotonic() > self._remark_until:
            self._remark("")
        # Half a tick less, so that a pane is drawn in the tick that is due and not in the one after.
        self._dashboard.draw(
            time.monotonic(), 1.0 / self._ui.redraw_hz - self._pump_s / 2, computing=state not in _AT_REST
        )
        if ended:
            assert thread is not None
            self.exit(thread.exit_code)

    def _read(self) -> None:
        for line in self.port.source.read():
            record = decode(line)
            if record is not None:
                self.view.apply(record)
                self.scene.version += 1
        answered = {name for name, pending in self._pending.items() if pending.command_id in self.view.acknowledged}
        for name in answered:
            ack = self.view.acknowledged[self._pending.pop(name).command_id]
            if not ack.ok:
                self._remark(f"{ack.command}: {ack.message}")
        if answered:
            self._show_pending()

    def _state_changed(self, state: RunState) -> None:
        if state in (RunState.FINISHED, RunState.FAILED) and self._ui.bell and self._last_state is not RunState.LOADING:
            self.bell()
        self._last_state = state
        if state in (RunState.FAILED, RunState.LOST):
            # What was asked for and not answered by now never will be, except the end itself.
            self._pending = {name: asked for name, asked in self._pending.items() if name == "leave"}
            self._show_pending()
        self._dashboard.show_failure(self.view.failure is not None)
        self._dashboard.draw_now("header", "compact", "keys", "failure", "too-small")
        self._dashboard.draw_next()  # what led to the new state is not to wait for a rest

    def _look_around(self) -> None:
        if self._hung_up() or self._terminal_gone():
            self._detach()
            return
        self.port.control.refresh()
        self._follow_trainer()

    def _terminal_gone(self) -> bool:
        """Textual's input thread spins at the end of input (textual#6690), so a lost terminal must end the application."""
        if self._input_fd is None:
            return False
        poll = select.poll()
        poll.register(self._input_fd, select.POLLHUP | select.POLLERR)
        return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))

    def _follow_trainer(self) -> None:
        """Take over what is known of a trainer in another process."""
        control = self.port.control
        if (control.hint, control.trainer_gone) != (self.scene.control_hint, self.scene.trainer_gone):
            self.scene.control_hint, self.scene.trainer_gone = control.hint, control.trainer_gone
            self.scene.version += 1

    def _detach(self) -> None:
        """Leave the screen; the run goes on."""
        self.detached = True
        self.exit(EXIT_OK)

    # Keys -------------------------------------------------------------------------------------------------------------

    def situation(self) -> Situation:
        """What decides whether an action can act now."""
        return Situation(
            view=self.view,
            state=self.scene.state,
            can_control=self.port.control.can_control,
            refusal=self.port.control.refusal,
            session_open=self.port.control.can_control if self.port.thread is None else self.port.thread.alive,
            pending=frozenset(self._pending),
        )

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: every action of the registry, and the themes."""
        for action in ACTIONS:
            yield SystemCommand(
                action.label.capitalize(),
                action.help,
                lambda name=action.name: self.call_later(getattr(self, f"action_{name}")),
            )
        yield SystemCommand("Theme", "Change the colours.", self.action_change_theme)

    def action_pause(self) -> None:
        """Pause, or go on."""
        if self.scene.state is RunState.PAUSED:
            self._send("pause", cmd.Unpause(), "resuming")
        else:
            self._send("pause", cmd.Pause(), "pausing")

    def action_checkpoint(self) -> None:
        """Save now."""
        self._send("checkpoint", cmd.SaveCheckpoint(), "saving")

    def action_evaluate(self) -> None:
        """Measure now."""
        self._send("evaluate", cmd.Evaluate(), "evaluating")

    def action_export(self) -> None:
        """Export this step."""
        self._send("export", cmd.Export(), "exporting")

    def action_learning_rate(self) -> None:
        """Ask for a rate and set it."""
        if self._refused("learning_rate"):
            return
        from tui.screens.dialogs import LearningRateScreen  # not before the first frame

        current = self.view.lr.last or 0.0
        self.push_screen(LearningRateScreen(current), self._set_rate)

    def _set_rate(self, rate: float | None) -> None:
        if rate is not None:
            self._send("learning_rate", cmd.SetLr(lr=rate), "setting learning rate")

    def action_log_scale(self) -> None:
        """Switch the loss axis."""
        self.scene.log_scale = not self.scene.log_scale
        self._remark(f"loss axis {'logarithmic' if self.scene.log_scale else 'linear'}")
        self._dashboard.draw_next("loss", "m-loss")

    def action_smoothing(self) -> None:
        """Take the next smoothing."""
        self.scene.smoothing = SMOOTHING[(SMOOTHING.index(self.scene.smoothing) + 1) % len(SMOOTHING)]
        self._remark(f"smoothing {self.scene.smoothing:g}" if self.scene.smoothing else "no smoothing")
        self._dashboard.draw_next("loss", "accuracy", "m-loss", "m-accuracy", "compact")

    def action_zoom(self) -> None:
        """Show the focused pane alone, or all again."""
        if self.screen is self._dashboard:
            self._dashboard.toggle_zoom()

    def action_next_pane(self) -> None:
        """Move the focus on."""
        self._dashboard.focus_next()

    def action_previous_pane(self) -> None:
        """Move the focus back."""
        self._dashboard.focus_previous()

    def action_help(self) -> None:
        """Explain the keys."""
        from tui.screens.dialogs import HelpScreen  # not before the first frame

        now = self.situation()
        self.push_screen(HelpScreen({action.name: action.why_not(now) for action in ACTIONS}))

    def action_detach(self) -> None:
        """Leave the screen and let the run go on."""
        if not self._refused("detach"):
            self._detach()

    def action_leave(self) -> None:
        """Leave a run that has ended; ask about one that trains."""
        from tui.screens.dialogs import QuitScreen  # not before the first frame

        thread = self.port.thread
        ended = self.scene.state in (RunState.FINISHED, RunState.FAILED)
        if thread is None and (ended or not self.port.control.can_control):
            self.exit(EXIT_OK)
        elif thread is not None and ended:
            thread.stop()
            self._remark("waiting for the export; q again stops it" if self.view.exporting else "leaving")
        elif "leave" in self._pending:
            self._remark("stopping already: the state is being saved")
        else:
            self.push_screen(QuitScreen(attached=thread is None), self._left)

    def _left(self, choice: str | None) -> None:
        if choice == "stop":
            self._deliver("leave", cmd.Stop(), "stopping")
        elif choice == "detach":
            self.action_detach()

    def _send(self, name: str, command: Command, word: str) -> None:
        if not self._refused(name):
            self._deliver(name, command, word)

    def _deliver(self, name: str, command: Command, word: str) -> None:
        try:
            self.port.control.send(command)
        except UndeliverableError as error:
            self._remark(str(error))
            return
        self._pending[name] = _Pending(command.command_id, word)
        self._show_pending()

    def _refused(self, name: str) -> bool:
        reason = BY_NAME[name].why_not(self.situation())
        if reason:
            self._remark(f"{BY_NAME[name].label}: {reason}")
        return bool(reason)

    def _show_pending(self) -> None:
        self.scene.pending = {name: pending.word for name, pending in self._pending.items()}
        self._dashboard.draw_now("header", "compact", "keys")

    def _remark(self, text: str) -> None:
        self._remark_until = time.monotonic() + _REMARK_S if text else 0.0
        self._dashboard.query_one("#keys", KeyBar).remark = text
        self._dashboard.draw_now("keys")

    # Failure ----------------------------------------------------------------------------------------------------------

    def _handle_exception(self, error: Exception) -> None:
        """An error of the dashboard ends the dashboard, not the run; the traceback goes to log.txt, not over the screen."""
        self.crash = self.crash or error
        log_traceback(self.port.run_dir, error)
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()
