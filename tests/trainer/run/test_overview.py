"""Overviews of the runs in a folder, and deletion of runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from tests.support.canned import START, evaluated, opened, started, steps
from tests.support.written_runs import write_log
from trainer.errors import RunError
from trainer.run.folder.delete import delete_run
from trainer.run.folder.lock import RunLock
from trainer.run.folder.run_dir import RunDir, create_run, list_runs
from trainer.run.log.event import Event
from trainer.run.log.reader import LogReader, read_records
from trainer.run.log.run_events import Finished
from trainer.run.status import RunState
from trainer.run.view import overview as overviews
from trainer.run.view.fold import apply
from trainer.run.view.overview import RunsFolder
from trainer.run.view.run_view import RunView

HISTORY = (opened(), started(), steps(1), evaluated(1), steps(101), evaluated(2), steps(201), steps(301, 50))
COMPLETED = Finished(reason="completed", step=1000, epoch=10.0, exit_code=0)


def test_the_overview_of_a_run_agrees_with_its_view(tmp_path: Path) -> None:
    run = write_log(tmp_path, "one", *HISTORY)
    view = RunView()
    for record in read_records(run.events):
        apply(view, record)
    lock = RunLock.take(run)
    (overview,) = RunsFolder(tmp_path, clock=lambda: START + 20).refresh()
    lock.release()
    assert view.last_evaluation is not None
    assert (overview.state, overview.epoch, overview.epochs) == (view.state, view.epoch, 10)
    assert (overview.last, overview.best) == (view.last_evaluation.accuracy, view.last_evaluation.accuracy)
    assert overview.accuracies == tuple((e.epoch, e.accuracy) for e in view.evaluations)
    assert (overview.begun, overview.last_time) == (START, START + len(HISTORY) - 1)
    assert overview.size_bytes >= run.events.stat().st_size
    assert overview.is_training


def test_later_events_are_read_once(tmp_path: Path) -> None:
    run = write_log(tmp_path, "one", *HISTORY)
    folder = RunsFolder(tmp_path, clock=lambda: START + 20)
    assert folder.refresh()[0].status == "loading PyTorch"
    write_log(tmp_path, "one", evaluated(4), COMPLETED, first=len(HISTORY))
    (overview,) = folder.refresh()
    assert overview.status == "finished"
    assert overview.accuracies[-1][0] == 4.0
    assert run.events.read_bytes().count(b"\n") == len(HISTORY) + 2


def test_a_new_run_with_the_name_of_a_deleted_one_is_another_run(tmp_path: Path) -> None:
    run = write_log(tmp_path, "one", *HISTORY)
    kept = run.events.with_suffix(".kept")
    folder = RunsFolder(tmp_path, clock=lambda: START + 20)
    assert folder.refresh()[0].epoch == 4
    run.events.rename(kept)  # kept, so that the new log cannot get its inode
    write_log(tmp_path, "one", opened())
    assert folder.refresh()[0].epoch == 0


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (COMPLETED, "finished"),
        (Finished(reason="stopped", step=350, epoch=3.5, exit_code=0), "stopped"),
        (None, "lost"),
    ],
)
def test_an_ended_run_shows_how_it_ended(tmp_path: Path, end: Event | None, status: str) -> None:
    run = write_log(tmp_path, "one", *HISTORY, *([end] if end else []))
    lock = RunLock.take(run)
    owner = run.trainer.read_bytes()
    lock.release()
    if end is None:
        run.trainer.write_bytes(owner)  # as a killed trainer leaves it
    (overview,) = RunsFolder(tmp_path, clock=lambda: START + 20).refresh()
    assert overview.status == status
    assert not overview.live


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    write_log(tmp_path, "old", *HISTORY)
    write_log(tmp_path, "new", *HISTORY, begun=START + 1000)
    names = [run.run_dir.name for run in RunsFolder(tmp_path, clock=lambda: START).refresh()]
    assert names == ["new", "old"]


def test_a_foreign_log_does_not_hide_other_runs(tmp_path: Path) -> None:
    write_log(tmp_path, "good", *HISTORY)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "events.jsonl").write_bytes(b"\xff\x00 no log\n{}\n[1]\n" + b'{"kind":"steps"' + b"\n")
    by_name = {run.run_dir.name: run for run in RunsFolder(tmp_path, clock=lambda: START).refresh()}
    assert by_name["good"].epoch == 4
    assert (by_name["odd"].epoch, by_name["odd"].best, by_name["odd"].state) == (0, None, RunState.LOST)


def test_an_unreadable_log_does_not_hide_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path, "good", *HISTORY)
    write_log(tmp_path, "odd", *HISTORY)
    read = LogReader.read

    def refuse(follower: LogReader) -> list[bytes]:
        if "odd" in str(follower._path):
            raise OSError(5, "Input/output error")
        return read(follower)

    monkeypatch.setattr(LogReader, "read", refuse)
    folder = RunsFolder(tmp_path, clock=lambda: START)
    assert {run.run_dir.name: run.status for run in folder.refresh()} == {
        "good": "loading PyTorch",
        "odd": "unreadable",
    }
    monkeypatch.undo()
    assert {run.epoch for run in folder.refresh()} == {4}


@pytest.mark.parametrize("part", ["presence", "is_live"])
def test_an_unreadable_owner_s_file_hides_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    for name in ("first", "odd", "last"):
        write_log(tmp_path, name, *HISTORY)
    look = getattr(overviews, part)

    def refuse(run_dir: RunDir) -> object:
        if run_dir.name == "odd":
            raise PermissionError(13, "Permission denied", str(run_dir.trainer))
        return look(run_dir)

    monkeypatch.setattr(overviews, part, refuse)
    folder = RunsFolder(tmp_path, clock=lambda: START)
    assert {run.run_dir.name: run.status for run in folder.refresh()} == {
        "first": "loading PyTorch",
        "odd": "unreadable",
        "last": "loading PyTorch",
    }
    monkeypatch.undo()
    assert {run.epoch for run in folder.refresh()} == {4}


def test_only_changed_logs_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [write_log(tmp_path, name, *HISTORY, COMPLETED) for name in ("one", "two", "three")]
    for run in runs:
        run.trainer.touch()
    folder = RunsFolder(tmp_path, clock=lambda: START + 20)
    before = folder.refresh()
    opened_files: list[str] = []
    read = LogReader.read

    def counted(follower: LogReader) -> list[bytes]:
        opened_files.append(follower._path.parent.name)
        return read(follower)

    monkeypatch.setattr(LogReader, "read", counted)
    assert folder.refresh() is before
    assert opened_files == []
    write_log(tmp_path, "two", opened(), first=len(HISTORY) + 1)
    after = folder.refresh()
    assert set(opened_files) == {"two"}
    by_name = {run.run_dir.name: run for run in after}
    assert (by_name["two"].epoch, by_name["two"].state) == (4, RunState.LOST)
    assert all(any(run is old for old in before) for name, run in by_name.items() if name != "two")
    lock = RunLock.take(runs[2])
    assert [run.run_dir.name for run in folder.refresh() if run.live] == ["three"]
    lock.release()
    assert not any(run.live for run in folder.refresh())


def test_the_newest_run_is_read_first_and_results_appear_gradually(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        run = write_log(tmp_path, name, *HISTORY, begun=START - 1000 * age)
        os.utime(run.events, (START - 1000 * age, START - 1000 * age))
    folder = RunsFolder(tmp_path, clock=lambda: START)
    known = [[run.run_dir.name for run in folder.runs] for _ in folder.steps()]
    assert known == [["newest"], ["newest", "middle"], ["newest", "middle", "oldest"]]


def test_deleting_a_run_deletes_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("kept")
    run, other = create_run(tmp_path / "runs", "one"), create_run(tmp_path / "runs", "two")
    (run.path / "link").symlink_to(outside)
    delete_run(run)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [other.name]
    assert (outside / "file").read_text() == "kept"


def test_a_live_run_is_not_deleted(tmp_path: Path) -> None:
    run = create_run(tmp_path, "one")
    lock = RunLock.take(run)
    with pytest.raises(RunError, match="already active"):
        delete_run(run)
    lock.release()
    assert run.log.exists()


def test_a_link_to_a_run_is_not_deleted(tmp_path: Path) -> None:
    run = create_run(tmp_path / "elsewhere", "one")
    link = tmp_path / "link"
    link.symlink_to(run.path)
    with pytest.raises(RunError, match="is a link"):
        delete_run(RunDir(link))
    assert run.log.exists()
    assert link.is_symlink()


def test_a_partly_deleted_run_is_named_and_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("trainer.run.folder.delete.shutil.rmtree", refuse)
    run = write_log(tmp_path, "one", *HISTORY)
    with pytest.raises(RunError, match=r"\.one\.deleted-\d+: cannot be deleted: Permission denied"):
        delete_run(run)
    assert list_runs(tmp_path) == []


def test_the_best_is_the_chosen_evaluation(tmp_path: Path) -> None:
    """The best by loss need not have the highest accuracy; list, dashboard and report show the same one."""
    chosen = dataclasses.replace(evaluated(1), accuracy=0.1, loss=0.5, best=True)
    later = dataclasses.replace(evaluated(2), accuracy=0.9, loss=2.0, best=False)
    write_log(tmp_path, "by-loss", opened(), started(), steps(1), chosen, later)
    (run,) = RunsFolder(tmp_path).refresh()
    assert (run.best, run.last) == (0.1, 0.9)
