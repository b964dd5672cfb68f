"""The list of runs over a dashboard: opens, compares and resumes runs, and returns from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import EXIT_OK
from trainer.run.folder.run_dir import RunDir
from tui.app.run_actions import RunActions
from tui.app.run_controller import RunController
from tui.state.run_port import attached_port, recorded_port

if TYPE_CHECKING:
    from trainer.run.view.overview import RunOverview
    from tui.app.screens.runs import RunsScreen
    from tui.state.compared_run import Compared


class ListActions(RunActions):
    """The part of the application that switches between runs.

    Attributes:
        resume: The run that the user wants to resume, in a separate process.
    """

    resume: RunDir | None
    _home: RunController | None
    _open: list[RunController]
    _runs_dir: Path
    _clock: Callable[[], float]
    _read_only: bool

    def _list_of_runs(self) -> RunsScreen:
        # Not before the first frame of a run.
        from trainer.run.view.overview import RunsFolder
        from tui.app.screens.runs import RunsScreen

        folder = RunsFolder(self._runs_dir, clock=self._clock)
        here = None if self._home is None else self._home.port.run_dir
        marked = () if self._home is None else self._home.scene.compared
        return RunsScreen(folder, clock=self._clock, here=here, marked=marked)

    def action_runs(self) -> None:
        """Show all runs; from a run opened in the list, return to the list."""
        if self.watched is self._home:
            self.push_screen(self._list_of_runs())
        else:
            self._back_to_list()

    def open_run(self, run: RunOverview) -> None:
        """Show a run of the list; it can be controlled where another process trains it."""
        home = self._home
        if home is not None and run.run_dir.path.resolve() == home.port.run_dir.path.resolve():
            self.pop_screen()
            return
        steered = run.live and not self._read_only
        opened = RunController(attached_port(run.run_dir) if steered else recorded_port(run.run_dir))
        self._open.append(opened)
        self.push_screen(opened.screen)

    @property
    def list_refusal(self) -> str:
        """Why no run of the list can be changed; empty if they can be."""
        return "only looked at here; without --read-only runs can be resumed and deleted" if self._read_only else ""

    def resume_run(self, run: RunOverview) -> str:
        """Resume a run of the list.

        Returns:
            Why that is not possible; empty when the resume has been started.
        """
        if self._home is not None and self._home.port.thread is not None:
            return f"one process trains one run; from another shell: {run.run_dir.resume_command()}"
        self.resume = run.run_dir
        self.exit(EXIT_OK)
        return ""

    def leave_list(self, marked: tuple[Compared, ...] | None) -> None:
        """Return to the dashboard under the list, with the curves of the marked runs added, or to the shell."""
        if self._home is None:
            self.exit(EXIT_OK)
            return
        scene = self._home.scene
        if marked is not None:
            here = scene.run_dir.path.resolve()
            scene.compared = tuple(one for one in marked if one.run.run_dir.path.resolve() != here)
            scene.version += 1
        self.pop_screen()

    def _back_to_list(self) -> None:
        shown = self.watched
        shown.close()
        self._open.remove(shown)
        self.pop_screen()

    def _leave(self) -> None:
        """Leave the run on the screen; other processes continue unaffected."""
        if self.watched is self._home:
            self.exit(EXIT_OK)
        else:
            self._back_to_list()
