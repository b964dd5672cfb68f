"""The owner of a run, by its lock and, where locks do not reach, by its log."""

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
    """A run that is training, according to its log."""
    training = StateChanged(state=RunState.TRAINING.value)
    return write_log(tmp_path, "demo", opened(), started(), training, steps(1), begun=time.time() - 5)


def write_owner(run: RunDir, **owner: Any) -> RunDir:
    run.trainer.write_bytes(orjson.dumps({"pid": 1, "host": "gpu-box-7", "boot_id": "another"} | owner))
    return run


def age(run: RunDir, seconds: float) -> None:
    os.utime(run.events, (time.time() - seconds,) * 2)


def test_a_run_of_another_machine_has_one_writer_without_its_lock(run: RunDir) -> None:
    write_owner(run)
    assert presence(run) is Presence.UNKNOWN
    assert is_live(run)
    for take in (RunLock.take, delete_run):
        with pytest.raises(RunError, match=r"trained by process 1 on gpu-box-7.* s ago; continue it there, or wait"):
            take(run)
    control = SocketControl(run)
    assert "runs on gpu-box-7; control it from there" in control.refusal
    (overview,) = RunsFolder(run.path.parent).refresh()
    assert (overview.status, overview.live) == ("training", True)


def test_a_silent_run_of_another_machine_is_taken_over(run: RunDir) -> None:
    write_owner(run)
    age(run, LOST_AFTER_S + 1)
    assert not is_live(run)
    RunLock.take(run).release()


@pytest.mark.parametrize("owner", [{"boot_id": boot_id()}, {"host": os.uname().nodename}])
def test_the_lock_shows_the_presence_of_a_run_on_this_machine(run: RunDir, owner: dict[str, str]) -> None:
    write_owner(run, **owner)
    assert presence(run) is Presence.GONE
    RunLock.take(run).release()
    assert presence(run) is Presence.GONE, "an emptied file means no owner"


def test_a_silent_run_is_not_lost_while_its_process_lives(run: RunDir) -> None:
    """On a full disk, a live run cannot log."""
    lock = RunLock.take(run)
    folder = RunsFolder(run.path.parent, clock=lambda: time.time() + 10 * LOST_AFTER_S)
    assert folder.refresh()[0].status == "training"
    lock.release()
    assert folder.refresh()[0].status == "lost"


def test_a_trainer_stopped_by_a_signal_is_recognised(tmp_path: Path) -> None:
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
def test_an_owner_with_an_invalid_pid_is_not_reported_as_stopped(tmp_path: Path, pid: object) -> None:
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
