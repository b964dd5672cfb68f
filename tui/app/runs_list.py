"""The open runs and the list over them: opens, compares and resumes runs, and returns from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from trainer.errors import EXIT_OK
from trainer.run.folder.run_dir import RunDir
from tui.app.run_controller import RunController
from tui.state.run_port import attached_port, recorded_port

if TYPE_CHECKING:
    from trainer.run.view.overview import RunOverview
    from tui.app.screens.runs_screen import RunsScreen
    from tui.state.compared_run import Compared


class RunsList:
    """Switches between runs. Everything happens on the application's thread.

    Attributes:
        home: The run that the application was started with; None where it was started with the list.
        open: All open runs: `home`, and the one that was opened in the list.
        resume: The run that the user wants to resume, in a separate process.
    """

    def __init__(
        self, app: App[int], home: RunController | None, runs_dir: Path,
        *, clock: Callable[[], float], read_only: bool,
    ) -> None:  # fmt: skip
        """Start with a run, or with the list.

        Args:
            app: The application, which shows the screens.
            home: The run that it is started with.
            runs_dir: The folder whose runs are listed.
            clock: Unix seconds.
            read_only: Whether runs cannot be controlled, resumed or deleted.
        """
        self.home = home
        self.open = [] if home is None else [home]
        self.resume: RunDir | None = None
        self._app = app
        self._runs_dir = runs_dir
        self._clock = clock
        self._read_only = read_only

    @property
    def shown(self) -> RunController | None:
        """Run of the topmost dashboard on the screen stack; None where there is none."""
        shown = {id(run.screen): run for run in self.open}
        below = (shown[id(screen)] for screen in reversed(self._app.screen_stack) if id(screen) in shown)
        return next(below, self.home)

    @property
    def watched(self) -> RunController:
        """The run on the screen, or under the list."""
        shown = self.shown
        assert shown is not None, "keys of a dashboard are not bound in the list of runs"
        return shown

    def screen(self) -> RunsScreen:
        """A new screen with the list."""
        # Not before the first frame of a run.
        from trainer.run.view.overview import RunsFolder
        from tui.app.screens.runs_screen import RunsScreen

        folder = RunsFolder(self._runs_dir, clock=self._clock)
        here = None if self.home is None else self.home.port.run_dir
        marked = () if self.home is None else self.home.scene.compared
        return RunsScreen(folder, self, clock=self._clock, here=here, marked=marked)

    def show(self) -> None:
        """Show all runs; from a run opened in the list, return to the list."""
        if self.watched is self.home:
            self._app.push_screen(self.screen())
        else:
            self._back_to_list()

    def open_run(self, run: RunOverview) -> None:
        """Show a run of the list; it can be controlled where another process trains it."""
        home = self.home
        if home is not None and run.run_dir.path.resolve() == home.port.run_dir.path.resolve():
            self._app.pop_screen()
            return
        controlled = run.live and not self._read_only
        opened = RunController(attached_port(run.run_dir) if controlled else recorded_port(run.run_dir))
        self.open.append(opened)
        self._app.push_screen(opened.screen)

    @property
    def refusal(self) -> str:
        """Why no run of the list can be changed; empty if they can be."""
        return "view only; without --read-only runs can be resumed and deleted" if self._read_only else ""

    def resume_run(self, run: RunOverview) -> str:
        """Resume a run of the list.

        Returns:
            Why that is not possible; empty when the resume has been started.
        """
        if self.home is not None and self.home.port.thread is not None:
            return f"one process trains one run; from another shell: {run.run_dir.resume_command()}"
        self.resume = run.run_dir
        self._app.exit(EXIT_OK)
        return ""

    def leave_list(self, marked: tuple[Compared, ...] | None) -> None:
        """Return to the dashboard under the list, or to the shell.

        Args:
            marked: Runs whose curves are drawn below those of the dashboard's run; None keeps the current ones.
        """
        if self.home is None:
            self._app.exit(EXIT_OK)
            return
        scene = self.home.scene
        if marked is not None:
            here = scene.run_dir.path.resolve()
            scene.compared = tuple(one for one in marked if one.run.run_dir.path.resolve() != here)
            scene.version += 1
        self._app.pop_screen()

    def leave_run(self) -> None:
        """Leave the run on the screen; other processes continue unaffected."""
        if self.watched is self.home:
            self._app.exit(EXIT_OK)
        else:
            self._back_to_list()

    def _back_to_list(self) -> None:
        shown = self.watched
        shown.close()
        self.open.remove(shown)
        self._app.pop_screen()
