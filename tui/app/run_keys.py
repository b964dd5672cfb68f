"""Actions of a dashboard's keys: commands to the run, dialogs (imported when they open), and changes of the display."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.screen import Screen

from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command
from trainer.run.log.result_events import LrRangeTested
from trainer.run.log.run_events import Diverged
from trainer.run.status import RunState
from trainer.run.view.run_view import SMOOTHING
from tui.app.run_controller import RunController
from tui.app.runs_list import RunsList
from tui.state.keys import ACTIONS, lr_range_test_is_running

if TYPE_CHECKING:
    from tui.app.screens.dialogs import HelpScreen

_COMMANDS: dict[str, tuple[Callable[[], Command], str]] = {
    "checkpoint": (cmd.SaveCheckpoint, "saving"),
    "evaluate": (cmd.Evaluate, "evaluating"),
    "export": (cmd.Export, "exporting"),
    "unfreeze": (cmd.Unfreeze, "unfreezing"),
    "freeze": (cmd.Freeze, "freezing"),
    "go_back": (cmd.GoBack, "going back"),
}
"""Keys that send a command at once: its class, and the word shown until the answer arrives."""


class RunKeys:
    """Acts on the run on the screen; `actions` has a function per action of `tui.state.keys`."""

    def __init__(self, app: App[int], runs: RunsList) -> None:
        self._app = app
        self._runs = runs
        self._offered: Diverged | None = None
        self._lr_range_run: RunController | None = None
        self._range_before: LrRangeTested | None = None
        self.actions: dict[str, Callable[[], None]] = {
            **{name: partial(self._send, name) for name in _COMMANDS},
            "pause": self._pause,
            "learning_rate": self._set_learning_rate,
            "plan": self._change_plan,
            "note": self._add_note,
            "find_lr": self._find_lr,
            "log_scale": self._toggle_log_scale,
            "smoothing": self._next_smoothing,
            "heat": self._toggle_heat,
            "zoom": self._toggle_zoom,
            "next_pane": partial(self._move_focus, 1),
            "previous_pane": partial(self._move_focus, -1),
            "runs": runs.show,
            "messages": self._show_messages,
            "help": self._show_help,
        }

    def _send(self, name: str) -> None:
        command, word = _COMMANDS[name]
        self._runs.current.send(name, command(), word)

    def _pause(self) -> None:
        run = self._runs.current
        if run.view.paused:
            run.send("pause", cmd.Unpause(), "resuming")
        else:
            run.send("pause", cmd.Pause(), "pausing")

    def _set_learning_rate(self) -> None:
        run = self._runs.current
        if not run.refuses("learning_rate"):
            from tui.app.screens.dialogs import LearningRateScreen

            screen = LearningRateScreen(lambda: run.view.next_lr, run.view.edit_to_undo)
            self._ask(screen, "learning_rate", lambda command: command, "setting learning rate")

    def _change_plan(self) -> None:
        view = self._runs.current.view
        if not self._runs.current.refuses("plan"):
            from tui.app.screens.plan import PlanScreen

            screen = PlanScreen(view.plan, view.step // max(view.steps_per_epoch, 1) + 1, view.rate_with)
            self._ask(screen, "plan", lambda settings: cmd.ChangeSettings(settings=settings), "changing the plan")

    def _add_note(self) -> None:
        if not self._runs.current.refuses("note"):
            from tui.app.screens.dialogs import NoteScreen

            self._ask(NoteScreen(), "note", lambda text: cmd.AddNote(text=text), "adding a note")

    def _ask(self, screen: Screen[Any], name: str, command: Callable[[Any], Command], word: str) -> None:
        """Show a dialog; unless it is cancelled, send the command that its answer stands for."""
        run = self._runs.current

        def send(answer: Any) -> None:
            if answer is not None:
                run.send(name, command(answer), word)

        self._app.push_screen(screen, send)

    def _find_lr(self) -> None:
        run = self._runs.current
        if lr_range_test_is_running(run.situation()):
            self._lr_range_run = None
            run.send("find_lr", cmd.FindLr(), "stopping")
            return
        self._range_before = run.view.lr_range
        if run.send("find_lr", cmd.FindLr(), "trying learning rates"):
            self._lr_range_run = run

    def leave(self, detach: Callable[[], None]) -> None:
        """Leave a run that has ended; ask about one that trains."""
        from tui.app.screens.dialogs import QuitScreen

        run, thread = self._runs.current, self._runs.current.port.thread
        ended = run.scene.state in (RunState.FINISHED, RunState.FAILED)

        def left(choice: str | None) -> None:
            if choice == "stop":
                run.ask("leave", cmd.Stop(), "stopping")
            elif choice == "detach":
                detach()

        if thread is None and (ended or not run.port.control.can_control):
            self._runs.leave_run()
        elif thread is not None and ended:
            thread.stop()
            run.show_message("waiting for the export; q again stops it" if run.view.exporting else "leaving")
        elif "leave" in run.situation().pending:
            run.show_message("stopping already: the state is being saved")
        else:
            self._app.push_screen(QuitScreen(attached=thread is None), left)

    def offer_remedies(self) -> None:
        """Offer remedies after non-finite steps, once, if this screen may control the run."""
        run = self._runs.current
        diverged = run.view.diverged
        is_shown = run.scene.state is RunState.PAUSED and self._app.screen is run.screen
        if diverged is None or diverged is self._offered or not is_shown:
            return
        self._offered = diverged
        if run.port.control.can_control:
            from tui.app.screens.dialogs import DivergedScreen

            def decide(choice: str | None) -> None:
                if choice == "back":
                    run.send("go_back", cmd.GoBack(), "going back")
                elif choice == "rate":
                    self._set_learning_rate()

            self._app.push_screen(DivergedScreen(diverged), decide)

    def show_lr_range(self) -> None:
        """Show the result of a range test on the dashboard that requested it."""
        run = self._runs.current
        found = run.view.lr_range
        if self._lr_range_run is not run or found is self._range_before or self._app.screen is not run.screen:
            return
        self._lr_range_run = None
        assert found is not None
        from tui.app.screens.lr_range import LrRangeScreen

        self._ask(LrRangeScreen(found), "learning_rate", lambda rate: cmd.SetLr(lr=rate), "setting learning rate")

    def _toggle_log_scale(self) -> None:
        run = self._runs.current
        run.scene.log_scale = not run.scene.log_scale
        run.show_message(f"loss axis {'logarithmic' if run.scene.log_scale else 'linear'}")
        run.screen.draw_next("loss", "m-loss")

    def _toggle_heat(self) -> None:
        run = self._runs.current
        run.scene.heat = not run.scene.heat
        run.show_message(f"heat maps over pictures {'on' if run.scene.heat else 'off'}")
        run.screen.draw_next("page-mistakes", "page-training")

    def _next_smoothing(self) -> None:
        run = self._runs.current
        run.scene.smoothing = SMOOTHING[(SMOOTHING.index(run.scene.smoothing) + 1) % len(SMOOTHING)]
        run.show_message(f"smoothing {run.scene.smoothing:g}" if run.scene.smoothing else "no smoothing")
        run.screen.draw_next("loss", "accuracy", "m-loss", "m-accuracy", "compact")

    def _toggle_zoom(self) -> None:
        if self._app.screen is self._runs.current.screen:
            self._runs.current.screen.toggle_zoom()

    def show_page(self, name: str) -> None:
        if self._app.screen is self._runs.current.screen:
            self._runs.current.screen.show_page(name)

    def _move_focus(self, by: int) -> None:
        """Move to the next or previous pane; to a page if a pane is shown alone."""
        screen = self._runs.current.screen
        if not screen.show_next_page(by):
            (screen.focus_next if by > 0 else screen.focus_previous)()

    def _show_messages(self) -> None:
        from tui.app.screens.messages import MessagesScreen

        self._app.push_screen(MessagesScreen(self._runs.current.scene))

    def _show_help(self) -> None:
        now = self._runs.current.situation()
        self.help_screen.explain({action.name: action.refusal(now) for action in ACTIONS})
        self._app.push_screen(self.help_screen)

    @cached_property
    def help_screen(self) -> HelpScreen:
        from tui.app.screens.dialogs import HelpScreen

        screen = HelpScreen()
        self._app.install_screen(screen, "help")
        return screen
