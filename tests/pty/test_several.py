"""`--nproc`: several processes behind one screen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.pty.program import MANY_EPOCHS, code_of, run_of, start, trainer_of
from tests.support.running import view_of, wait_for

pytestmark = pytest.mark.pty


@pytest.fixture(autouse=True)
def end_launchers(tmp_path: Path) -> Iterator[None]:
    """Kill torchrun, which would restart trainers, before the trainers."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "torch.distributed.run" in command and str(tmp_path / "runs") in command:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_a_run_of_two_processes_is_started_paused_detached_and_stopped(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs")
    with start(run.path.parent, "--nproc", "2", *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 180)
        leader = trainer_of(run)
        torchrun = leader.parent()
        assert torchrun is not None
        workers = torchrun.children()
        assert len(workers) == 2
        terminal.send("p")
        terminal.wait_for("● paused", 30)
        paused = view_of(run).step
        terminal.send("p")
        terminal.wait_for("● training", 30)
        wait_for(run, lambda view: view.step > paused + 3)
        terminal.send("d")
        assert code_of(terminal) == 0
    step = view_of(run).step
    wait_for(run, lambda view: view.step > step + 3)
    leader.terminate()  # as the program advises: torchrun restarts all processes only after a crash
    assert not psutil.wait_procs([torchrun, *workers], timeout=90)[1]
    view = view_of(run)
    assert view.finish is not None
    assert view.finish.reason == "SIGTERM"
    assert view.checkpoints[-1].step == view.step
