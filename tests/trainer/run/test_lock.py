"""Who trains a run, where the lock tells and where it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.canned import opened, started, steps
from tests.support.written_runs import write_log
from trainer.errors import RunError
from trainer.run.control.client import SocketControl
from trainer.run.folder.delete import delete_run
from trainer.run.folder.lock import RunLock, boot_id, is_live, presence, read_owner, stopped_pid
from trainer.run.folder.run_dir import RunDir, create_run
from trainer.run.log.run_events import StateChanged
from trainer.run.status import LOST_AFTER_S, Presence, RunState
from trainer.run.view.overview import RunsFolder
from trainer.run.view.run_view import RunView
from tui.state.summary import summary


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run in training, by its log."""
    training = StateChanged(state=RunState.TRAINING.value)
    return write_log(tmp_path, "demo", opened(), started(), training, steps(1), begun=time.time() - 5)


def held_by(run: RunDir, **holder: Any) -> RunDir:
    run.trainer.write_bytes(orjson.dumps({"pid": 1, "host": "gpu-box-7", "boot_id": "another"} | holder))
    return run


def age(run: RunDir, seconds: float) -> None:
    os.utime(run.events, (time.time() - seconds,) * 2)


def test_a_run_that_another_machine_trains_has_one_writer_although_its_lock_does_not_reach(run: RunDir) -> None:
    held_by(run)
    assert presence(run) is Presence.UNKNOWN
    assert is_live(run)
    for take in (RunLock.take, delete_run):
        with pytest.raises(RunError, match=r"trained by process 1 on gpu-box-7.* s ago; continue it there, or wait"):
            take(run)
    control = SocketControl(run)
    assert "runs on gpu-box-7; control it from there" in control.refusal
    (overview,) = RunsFolder(run.path.parent).refresh()
    assert (overview.status, overview.live) == ("training", True)


def test_it_is_taken_over_once_it_has_been_silent(run: RunDir) -> None:
    held_by(run)
    age(run, LOST_AFTER_S + 1)
    assert not is_live(run)
    RunLock.take(run).release()


@pytest.mark.parametrize("holder", [{"boot_id": boot_id()}, {"host": os.uname().nodename}])
def test_of_a_run_of_this_machine_the_lock_tells(run: RunDir, holder: dict[str, str]) -> None:
    held_by(run, **holder)
    assert presence(run) is Presence.GONE
    RunLock.take(run).release()
    assert presence(run) is Presence.GONE, "an emptied file: nobody holds it"


def test_a_run_whose_log_is_silent_is_not_lost_while_its_process_is_there(run: RunDir) -> None:
    """The disk may be full: then what happens cannot be logged."""
    lock = RunLock.take(run)
    folder = RunsFolder(run.path.parent, clock=lambda: time.time() + 10 * LOST_AFTER_S)
    assert folder.refresh()[0].status == "training"
    lock.release()
    assert folder.refresh()[0].status == "lost"


def test_a_trainer_that_a_signal_has_stopped_is_told_from_one_that_runs(tmp_path: Path) -> None:
    run = create_run(tmp_path, "one")
    code = (
        "import sys, time, pathlib; from trainer.run.folder.lock import RunLock; from trainer.run.folder.run_dir import RunDir; "
        "lock = RunLock.take(RunDir(pathlib.Path(sys.argv[1]))); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)]) as process:
        try:
            eventually(lambda: (read_owner(run) or {}).get("pid") == process.pid)
            assert stopped_pid(run) is None
            process.send_signal(signal.SIGSTOP)
            eventually(lambda: stopped_pid(run) == process.pid)
            assert any(f"kill -CONT {process.pid}" in line for line in summary(RunView(), run))
            process.send_signal(signal.SIGCONT)
            eventually(lambda: stopped_pid(run) is None)
            process.send_signal(signal.SIGSTOP)
        finally:
            process.kill()
    assert stopped_pid(run) is None


@pytest.mark.parametrize("pid", [None, "1", -1, 2**60, True, 1.5])
def test_a_holder_with_an_odd_pid_is_called_running(tmp_path: Path, pid: object) -> None:
    run = create_run(tmp_path, "one")
    lock = RunLock.take(run)
    lock.publish_facts(pid=pid)
    assert stopped_pid(run) is None
    lock.release()


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
