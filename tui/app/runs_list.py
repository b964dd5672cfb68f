"""The open runs and the list of runs."""

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
    """Opens, compares, resumes and leaves runs, on the application's thread."""

    def __init__(
        self, app: App[int], home: RunController | None, runs_dir: Path,
        *, clock: Callable[[], float], read_only: bool,
    ) -> None:  # fmt: skip
        """Without `home`, start with the list; with `read_only` no run can be controlled, resumed or deleted."""
        self.home = home  # the run that the application was started with; None where it was started with the list
        self.open = [] if home is None else [home]  # `home`, and the run that was opened from the list
        self.resume: RunDir | None = None  # the run that the user wants to resume, in a separate process
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
    def current(self) -> RunController:
        """The run on the screen, or under the list."""
        shown = self.shown
        assert shown is not None, "keys of a dashboard are not bound in the list of runs"
        return shown

    def new_screen(self) -> RunsScreen:
        # Not before the first frame of a run.
        from trainer.run.view.overview import RunsFolder
        from tui.app.screens.runs_screen import RunsScreen

        folder = RunsFolder(self._runs_dir, clock=self._clock)
        here = None if self.home is None else self.home.port.run_dir
        marked = () if self.home is None else self.home.scene.compared
        return RunsScreen(folder, self, clock=self._clock, here=here, marked=marked)

    def show(self) -> None:
        """Show all runs; from a run opened in the list, return to the list."""
        if self.current is self.home:
            self._app.push_screen(self.new_screen())
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
        """Why the runs of the list cannot be changed; empty if they can be."""
        return "view only; without --read-only runs can be resumed and deleted" if self._read_only else ""

    def resume_run(self, run: RunOverview) -> str:
        """Resume a run of the list; returns why that is not possible, empty if the resume has been started."""
        if self.home is not None and self.home.port.thread is not None:
            return f"one process trains one run; from another shell: {run.run_dir.resume_command()}"
        self.resume = run.run_dir
        self._app.exit(EXIT_OK)
        return ""

    def leave_list(self, marked: tuple[Compared, ...] | None) -> None:
        """Return to the shell, or to the dashboard under the list, with the curves of `marked`; None keeps the current ones."""
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
        """Leave the run on the screen; another process that trains it continues."""
        if self.current is self.home:
            self._app.exit(EXIT_OK)
        else:
            self._back_to_list()

    def _back_to_list(self) -> None:
        shown = self.current
        shown.close()
        self.open.remove(shown)
        self._app.pop_screen()
