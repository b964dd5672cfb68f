"""Key actions on the run on the screen and on its display."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from trainer.run.control import commands as cmd
from trainer.run.control.commands import Command
from trainer.run.view.queries import SMOOTHING
from tui.app.terminal_app import TerminalApp
from tui.state.keys import ACTIONS

if TYPE_CHECKING:
    from tui.app.run_controller import RunController
    from tui.app.screens.dialogs import HelpScreen


class RunActions(TerminalApp[int]):
    """The part of the application that controls the run on its screen."""

    @property
    def watched(self) -> RunController:
        """The run on the screen, or under the list."""
        raise NotImplementedError

    def action_pause(self) -> None:
        """Pause or resume."""
        if self.watched.view.held:
            self.send("pause", cmd.Unpause(), "resuming")
        else:
            self.send("pause", cmd.Pause(), "pausing")

    def action_checkpoint(self) -> None:
        """Save a checkpoint now."""
        self.send("checkpoint", cmd.SaveCheckpoint(), "saving")

    def action_evaluate(self) -> None:
        """Evaluate now."""
        self.send("evaluate", cmd.Evaluate(), "evaluating")

    def action_export(self) -> None:
        """Export the weights of this step."""
        self.send("export", cmd.Export(), "exporting")

    def action_unfreeze(self) -> None:
        """Unfreeze one more stage."""
        self.send("unfreeze", cmd.Unfreeze(), "unfreezing")

    def action_freeze(self) -> None:
        """Freeze one more stage."""
        self.send("freeze", cmd.Freeze(), "freezing")

    def action_go_back(self) -> None:
        """Return to the checkpoint before the non-finite steps."""
        self.send("go_back", cmd.GoBack(), "going back")

    def action_learning_rate(self) -> None:
        """Open the dialog for the learning rate and set it."""
        if self.watched.refuses("learning_rate"):
            return
        from tui.app.screens.dialogs import LearningRateScreen  # not before the first frame

        view = self.watched.view
        self.push_screen(LearningRateScreen(lambda: view.next_lr, view.edit_to_undo), self._edit_rate)

    def _edit_rate(self, command: cmd.SetLr | cmd.ScaleLr | None) -> None:
        if command is not None:
            self.send("learning_rate", command, "setting learning rate")

    def set_rate(self, rate: float | None) -> None:
        """Set a rate; None keeps the current one."""
        if rate is not None:
            self.send("learning_rate", cmd.SetLr(lr=rate), "setting learning rate")

    def action_plan(self) -> None:
        """Open the dialog for the training plan."""
        if self.watched.refuses("plan"):
            return
        from tui.app.screens.plan import PlanScreen  # not before the first frame

        view = self.watched.view
        under_way = view.step // max(view.steps_per_epoch, 1) + 1
        self.push_screen(PlanScreen(view.plan, under_way, view.rate_with), self._change_plan)

    def _change_plan(self, settings: dict[str, float] | None) -> None:
        if settings:
            self.send("plan", cmd.ChangeSettings(settings=settings), "changing the plan")

    def action_note(self) -> None:
        """Open the dialog for a note and save it."""
        if self.watched.refuses("note"):
            return
        from tui.app.screens.dialogs import NoteScreen  # not before the first frame

        self.push_screen(NoteScreen(), self._keep_note)

    def _keep_note(self, text: str | None) -> None:
        if text:
            self.send("note", cmd.AddNote(text=text), "noting")

    def action_log_scale(self) -> None:
        """Toggle the logarithmic loss axis."""
        run = self.watched
        run.scene.log_scale = not run.scene.log_scale
        run.remark(f"loss axis {'logarithmic' if run.scene.log_scale else 'linear'}")
        run.screen.draw_next("loss", "m-loss")

    def action_smoothing(self) -> None:
        """Switch to the next smoothing."""
        run = self.watched
        run.scene.smoothing = SMOOTHING[(SMOOTHING.index(run.scene.smoothing) + 1) % len(SMOOTHING)]
        run.remark(f"smoothing {run.scene.smoothing:g}" if run.scene.smoothing else "no smoothing")
        run.screen.draw_next("loss", "accuracy", "m-loss", "m-accuracy", "compact")

    def action_zoom(self) -> None:
        """Show the focused pane alone, or all panes again."""
        if self.screen is self.watched.screen:
            self.watched.screen.toggle_zoom()

    def action_page(self, name: str) -> None:
        """Show a page, or the overview again."""
        if self.screen is self.watched.screen:
            self.watched.screen.show_page(name)

    def action_next_pane(self) -> None:
        """Move the focus to the next pane, or show the next page."""
        if not self.watched.screen.show_next_page(1):
            self.watched.screen.focus_next()

    def action_previous_pane(self) -> None:
        """Move the focus to the previous pane, or show the previous page."""
        if not self.watched.screen.show_next_page(-1):
            self.watched.screen.focus_previous()

    def action_messages(self) -> None:
        """Show all messages and the output of libraries."""
        from tui.app.screens.messages import MessagesScreen  # not before the first frame

        self.push_screen(MessagesScreen(self.watched.scene))

    def action_help(self) -> None:
        """Explain the keys."""
        now = self.watched.situation()
        self.help_screen.explain({action.name: action.refusal(now) for action in ACTIONS})
        self.push_screen(self.help_screen)

    @cached_property
    def help_screen(self) -> HelpScreen:
        """The help screen, kept until the application ends."""
        from tui.app.screens.dialogs import HelpScreen  # not before the first frame

        screen = HelpScreen()
        self.install_screen(screen, "help")
        return screen

    def prepare_help(self) -> None:
        """Lay out the help off screen, so that its key opens it at once."""
        self._get_screen(self.help_screen)

    def send(self, name: str, command: Command, word: str) -> bool:
        """Send a command unless it cannot act now; returns whether it was sent."""
        refused = self.watched.refuses(name)
        if not refused:
            self.watched.ask(name, command, word)
        return not refused
