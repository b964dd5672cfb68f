"""The end of the dashboard, between the screen and the shell."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ConfigMaker
from tests.support.running import STARTED, new_run, view_of
from trainer.host.stop_signals import SIGNAL_CODES
from trainer.session.training_thread import TrainingThread
from tui.app import show_in_terminal as run_app
from tui.terminal.launcher import LauncherLink


class NoTerminal:
    """Stands in for the terminal, which belongs to the user who runs the tests."""

    input_fd = -1

    def __init__(self, log: Path) -> None:
        self.log = log


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restores the signal handlers."""
    before = {number: signal.getsignal(number) for number in SIGNAL_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_failure_after_the_screen_does_not_end_the_run(
    make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*given: Any, **named: Any) -> TrainingThread:
        STARTED.append(TrainingThread(*given, **named))
        return STARTED[-1]

    def fail(*_: object) -> list[str]:
        raise OSError("a broken disk")

    run = new_run(make_config("train.epochs=1", "data.batch_size=64"), tmp_path)
    monkeypatch.setattr(run_app, "TrainingThread", start)
    monkeypatch.setattr(run_app, "PrivateTerminal", NoTerminal)
    monkeypatch.setattr(run_app, "_run_app", lambda *_: run_app._Ending(detached=True))
    monkeypatch.setattr(run_app, "_attach_instructions", fail)
    monkeypatch.setattr(run_app, "hazards", lambda _: ["this machine ends processes at logout"])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert run_app.train_in_dashboard(run, "", LauncherLink(theirs)) == 0
    view = view_of(run.run_dir)
    assert view.finish is not None
    assert view.finish.reason == "completed"
    assert "a broken disk" in run.run_dir.log.read_text()
    warned = [note.text for note in view.notes if note.level == "warning"]
    assert "without its terminal this run would end: this machine ends processes at logout" in warned
