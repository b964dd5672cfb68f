"""Run directories: names, locks, and the table of results."""

from __future__ import annotations

import csv
import dataclasses
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.errors import RunError
from trainer.run.folder.lock import RunLock, is_live, read_owner
from trainer.run.folder.run_dir import RunDir, create_run, find_run, list_runs
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import EpochEnded, Evaluated
from trainer.run.log.results_csv import COLUMNS, ResultsCsv
from trainer.run.log.run_events import Heartbeat, Opened, Resumed


def test_a_run_is_private_and_never_overwritten(tmp_path: Path) -> None:
    runs = [create_run(tmp_path, "r") for _ in range(3)]
    assert [run.name for run in runs] == ["r", "r-2", "r-3"]
    assert stat.S_IMODE(runs[0].path.stat().st_mode) == 0o700


def test_a_file_as_runs_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another folder with --runs-dir"):
        create_run(tmp_path / "file" / "runs", "r")


def test_a_run_has_one_writer_at_a_time(tmp_path: Path) -> None:
    run = create_run(tmp_path, "r")
    assert not is_live(run)
    lock = RunLock.take(run)
    assert is_live(run)
    assert (read_owner(run) or {})["pid"] == os.getpid()
    with pytest.raises(RunError, match=f"already active in process {os.getpid()}"):
        RunLock.take(run)
    lock.release()
    lock.release()
    assert read_owner(run) is None
    RunLock.take(run).release()


def test_the_refusal_of_an_ended_run_names_its_open_dashboard(tmp_path: Path) -> None:
    run = create_run(tmp_path, "r")
    lock = RunLock.take(run)
    before = read_owner(run) or {}
    lock.publish_facts(ended=True)
    assert read_owner(run) == before | {"ended": True}
    with pytest.raises(
        RunError, match=rf"has ended, but its dashboard is still open in process {os.getpid()} .* with q"
    ):
        RunLock.take(run)
    lock.release()
    assert read_owner(run) is None


def test_a_full_disk_leaves_the_owner_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(tmp_path, "a")
    lock = RunLock.take(run)
    lock.publish_facts(socket="/tmp/one.sock")

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.run.folder.lock.os.pwrite", full)
    lock.publish_facts(socket="/tmp/another.sock", ended=True)
    assert (read_owner(run) or {})["socket"] == "/tmp/one.sock"
    monkeypatch.undo()
    lock.publish_facts(socket="")
    assert (read_owner(run) or {})["socket"] == ""
    lock.release()
    assert run.trainer.read_bytes() == b""


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    run = create_run(tmp_path, "r")
    code = (
        "import os, sys; from pathlib import Path; from trainer.run.folder.lock import RunLock;"
        "from trainer.run.folder.run_dir import RunDir;"
        "RunLock.take(RunDir(Path(sys.argv[1]))); os.kill(os.getpid(), 9)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    assert result.returncode == -9
    assert read_owner(run) is not None
    assert not is_live(run)
    RunLock.take(run).release()


def test_runs_are_found_by_path_name_and_latest(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new")):
        run = create_run(tmp_path, name)
        run.events.touch()
        os.utime(run.events, (number, number))
    assert find_run("latest", tmp_path).name == "new"
    assert find_run("old", tmp_path) == RunDir(tmp_path / "old")
    assert find_run(str(tmp_path / "old"), Path("elsewhere")).name == "old"
    assert [run.name for run in list_runs(tmp_path)] == ["new", "old"]
    with pytest.raises(RunError, match=r"no run of this name; runs in .*: new, old"):
        find_run("missing", tmp_path)
    with pytest.raises(RunError, match="no runs here yet"):
        find_run("latest", tmp_path / "empty")


def test_results_keep_all_columns_and_drop_an_abandoned_future(tmp_path: Path) -> None:
    table = ResultsCsv(RunDir(tmp_path))

    def ended(epoch: int) -> EpochEnded:
        return EpochEnded(epoch=epoch, step=epoch * 10, train_loss=1.0, train_accuracy=0.5, lr=0.1, seconds=1.0)

    def evaluated(epoch: float, trigger: str = "epoch") -> Evaluated:
        return Evaluated(
            split="test", epoch=epoch, step=round(epoch * 10), loss=0.5, accuracy=0.75, correct=[], counts=[], trigger=trigger
        )  # fmt: skip

    resumed = Resumed(step=10, epoch=1, checkpoint="c", lr_edits=[])
    events = [ended(1), evaluated(1), evaluated(1.5, "key"), ended(2), evaluated(2), resumed, ended(2)]
    for seq, event in enumerate(events):
        table.observe(Record(seq=seq, time=float(seq), event=event))
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == "1,0.0,1.000000,0.500000,,,0.500000,0.750000,0.1"
    assert lines[2] == "2,6.0,1.000000,0.500000,,,,,0.1"
    assert len(lines) == 3


def test_the_time_in_the_results_ignores_jumps_of_the_clock(tmp_path: Path) -> None:
    table = ResultsCsv(RunDir(tmp_path))
    opened = Opened(run="a", directory="a", pid=1, host="h", resume=False, config={})
    ended = EpochEnded(epoch=1, step=10, train_loss=1.0, train_accuracy=0.5, lr=0.1, seconds=1.0)
    day = 86_400.0
    moments: list[tuple[float, Event]] = [
        (100.0, opened), (110.0, Heartbeat()), (110.0 + day, Heartbeat()), (120.0 + day, Heartbeat()), (5.0, ended),
    ]  # fmt: skip
    moments += [(9 * day, opened), (9 * day + 7.0, dataclasses.replace(ended, epoch=2, step=20))]
    for seq, (at, event) in enumerate(moments):
        table.observe(Record(seq=seq, time=at, event=event))
    with (tmp_path / "results.csv").open() as file:
        assert [row["time"] for row in csv.DictReader(file)] == ["20.0", "27.0"]
