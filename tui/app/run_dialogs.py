"""Dialogs about the run on the screen, and the commands that they lead to."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import App

from trainer.run.control import commands as cmd
from trainer.run.log.result_events import LrRangeTested
from trainer.run.log.run_events import Diverged
from trainer.run.status import RunState
from tui.app.run_controller import RunController
from tui.app.runs_list import RunsList
from tui.state.keys import tries_rates


class RunDialogs:
    """Opens dialogs. Their modules are imported when they open: not before the first frame."""

    def __init__(self, app: App[int], runs: RunsList) -> None:
        self._app = app
        self._runs = runs
        self._offered: Diverged | None = None
        self._range_wanted_of: RunController | None = None
        self._range_before: LrRangeTested | None = None

    def learning_rate(self) -> None:
        run = self._runs.watched
        if run.refuses("learning_rate"):
            return
        from tui.app.screens.dialogs import LearningRateScreen

        def edit(command: cmd.SetLr | cmd.ScaleLr | None) -> None:
            if command is not None:
                run.send("learning_rate", command, "setting learning rate")

        self._app.push_screen(LearningRateScreen(lambda: run.view.next_lr, run.view.edit_to_undo), edit)

    def plan(self) -> None:
        run = self._runs.watched
        if run.refuses("plan"):
            return
        from tui.app.screens.plan import PlanScreen

        def change(settings: dict[str, float] | None) -> None:
            if settings:
                run.send("plan", cmd.ChangeSettings(settings=settings), "changing the plan")

        under_way = run.view.step // max(run.view.steps_per_epoch, 1) + 1
        self._app.push_screen(PlanScreen(run.view.plan, under_way, run.view.rate_with), change)

    def note(self) -> None:
        run = self._runs.watched
        if run.refuses("note"):
            return
        from tui.app.screens.dialogs import NoteScreen

        def add(text: str | None) -> None:
            if text:
                run.send("note", cmd.AddNote(text=text), "adding a note")

        self._app.push_screen(NoteScreen(), add)

    def leave(self, detach: Callable[[], None]) -> None:
        """Leave a run that has ended; ask about one that trains."""
        from tui.app.screens.dialogs import QuitScreen

        run, thread = self._runs.watched, self._runs.watched.port.thread
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
            run.remark("waiting for the export; q again stops it" if run.view.exporting else "leaving")
        elif "leave" in run.situation().pending:
            run.remark("stopping already: the state is being saved")
        else:
            self._app.push_screen(QuitScreen(attached=thread is None), left)

    def offer_remedies(self) -> None:
        """Offer remedies after non-finite steps, once, if this screen may control the run."""
        run = self._runs.watched
        held = run.view.diverged
        if (
            held is None
            or held is self._offered
            or run.scene.state is not RunState.PAUSED
            or self._app.screen is not run.screen
        ):
            return
        self._offered = held
        if run.port.control.can_control:
            from tui.app.screens.dialogs import DivergedScreen

            def decide(choice: str | None) -> None:
                if choice == "back":
                    run.send("go_back", cmd.GoBack(), "going back")
                elif choice == "rate":
                    self.learning_rate()

            self._app.push_screen(DivergedScreen(held), decide)

    def find_lr(self) -> None:
        run = self._runs.watched
        if tries_rates(run.situation()):
            self._range_wanted_of = None
            run.send("find_lr", cmd.FindLr(), "stopping")
            return
        self._range_before = run.view.lr_range
        if run.send("find_lr", cmd.FindLr(), "trying learning rates"):
            self._range_wanted_of = run

    def show_lr_range(self) -> None:
        """Show the result of a range test on the dashboard that requested it."""
        run = self._runs.watched
        found = run.view.lr_range
        if self._range_wanted_of is not run or found is self._range_before or self._app.screen is not run.screen:
            return
        self._range_wanted_of = None
        assert found is not None
        from tui.app.screens.lr_range import LrRangeScreen

        def use(rate: float | None) -> None:
            if rate is not None:
                run.send("learning_rate", cmd.SetLr(lr=rate), "setting learning rate")

        self._app.push_screen(LrRangeScreen(found), use)
