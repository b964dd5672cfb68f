"""Writing and reading the event log."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import decode, encode, event_kinds
from trainer.run.log.event import Event, Record
from trainer.run.log.live_source import LiveSource
from trainer.run.log.reader import LogReader, read_records
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import Gap, Heartbeat, LogFailed, LogRecovered, Opened, Resumed, StateChanged, Warned
from trainer.run.log.writer import EventLog
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView


def steps(first: int, count: int = 1) -> Steps:
    return Steps(first_step=first, loss=[1.0] * count, accuracy=[0.5] * count, lr=[0.1] * count, images=8, seconds=0.1)


def test_written_lines_are_read_back(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", clock=lambda: 12.5)
    written = [log.publish(event) for event in (Warned(message="a\nb"), steps(1, 3), Heartbeat())]
    log.close()
    assert list(read_records(tmp_path / "events.jsonl")) == written
    assert [record.seq for record in written] == [0, 1, 2]


def test_non_finite_numbers_become_null() -> None:
    record = decode(encode(Record(seq=0, time=0.0, event=Steps(
        first_step=1, loss=[float("nan"), float("inf"), 1.0], accuracy=[0.0] * 3, lr=[0.1] * 3, images=3, seconds=1.0
    ))))  # fmt: skip
    assert record is not None
    assert isinstance(record.event, Steps)
    assert record.event.loss == [None, None, 1.0]


def test_file_names_of_any_bytes_are_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    record = decode(encode(Record(seq=0, time=0.0, event=Warned(message=f"{name}: left out"))))
    assert record is not None
    assert record.event == Warned(message="caf\\udce9.png: left out")
    readings = decode(encode(Record(seq=0, time=0.0, event=Opened(
        run=name, directory=name, pid=1, host="h", resume=False, config={"data": {"classes": [name, "b"], name: 1.5}}
    ))))  # fmt: skip
    assert isinstance(readings and readings.event, Opened)


def test_the_tee_has_the_same_bytes_as_the_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    tee = log.tee()
    for number in range(200):
        log.publish(steps(number))
    log.close()
    assert b"".join(tee.read()) == (tmp_path / "events.jsonl").read_bytes()


def test_a_truncated_last_line_does_not_affect_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.publish(Warned(message="before"))
    log.close()
    with path.open("ab") as file:
        file.write(b'{"seq":1,"time":0.0,"kind":"war')
    log = EventLog(path)
    after = log.publish(Warned(message="after"))
    log.close()
    follower = LogReader(path)
    assert [record.event for record in follower.records()] == [Warned(message="before"), Warned(message="after")]
    assert follower.bad_lines == 1
    assert after.seq == 1


def test_a_follower_sees_only_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    line = encode(Record(seq=0, time=1.0, event=Warned(message="hello")))
    follower = LogReader(path)
    assert list(follower.records()) == []
    path.write_bytes(line[:10])
    assert list(follower.records()) == []
    path.write_bytes(line)
    assert [record.seq for record in follower.records()] == [0]
    assert list(follower.records()) == []


def test_empty_fields_are_omitted_only_if_they_are_defaults() -> None:
    def reads_back(event: Event) -> bytes:
        line = encode(Record(seq=1, time=2.0, event=event))
        record = decode(line)
        assert record is not None
        assert record.event == event
        return line

    assert reads_back(steps(7)) == b'{"seq":1,"time":2.0,"kind":"steps","steps":[7,[1.0],[0.5],[0.1],8,0.1]}\n'
    assert b"skipped" in reads_back(dataclasses.replace(steps(7), skipped=[7]))
    assert b"lr_edits" not in reads_back(Resumed(step=1, epoch=1, checkpoint="c"))
    assert b"lr_edits" in reads_back(Resumed(step=1, epoch=1, checkpoint="c", lr_edits=[]))
    assert b"fraction" in reads_back(StateChanged(state="preparing", fraction=0.0))
    assert b"log_version" in encode(Record(seq=1, time=2.0, event=Opened(
        run="r", directory="r", pid=1, host="h", resume=False, config={}
    )))  # fmt: skip


def test_a_long_log_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.run.log.reader._READ_BYTES", 64)
    path = tmp_path / "events.jsonl"
    lines = [encode(Record(seq=n, time=1.0, event=Warned(message="m" * n))) for n in range(300)]
    path.write_bytes(b"".join(lines) + b'{"seq":300,"ti')
    follower, pieces = LogReader(path), []
    while piece := follower.read():
        pieces.append(piece)
    assert len(pieces) > 100
    assert [line for piece in pieces for line in piece] == lines
    assert len(list(read_records(path))) == 300


@pytest.mark.parametrize(
    "tail", [b"", b'{"seq":7,"ti', b"x" * 3_000_000 + b"\n", b'{"seq":41,"time":1,"kind":"hologram"}\n']
)
def test_a_writer_continues_with_the_next_number(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(encode(Record(seq=n, time=1.0, event=steps(n))) for n in range(40)) + tail)
    log = EventLog(path, clock=lambda: 12.5)
    after = log.publish(Warned(message="after"))
    log.close()
    assert after.seq == (42 if b"hologram" in tail else 40)
    assert list(read_records(path))[-1] == after


def test_unknown_kinds_and_fields_are_ignored() -> None:
    assert decode(b'{"seq":1,"time":2.0,"kind":"hologram","x":1}\n') is None
    record = decode(b'{"seq":1,"time":2.0,"kind":"warning","message":"m","new_field":3}\n')
    assert record is not None
    assert record.event == Warned(message="m")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_nothing(line: bytes) -> None:
    result = decode(line)
    assert result is None or isinstance(result, Record)


def test_every_kind_has_its_own_name() -> None:
    kinds = event_kinds()
    assert "" not in kinds
    assert len(kinds) == len(set(kinds.values())) >= 18


def test_a_full_disk_is_reported_in_memory_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    full = threading.Event()
    full.set()
    write = os.write

    def failing_write(fd: int, data: bytes) -> int:
        if full.is_set() and threading.current_thread().name == "event-log":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr("trainer.run.log.writer.os.write", failing_write)
    monkeypatch.setattr("trainer.run.log.writer._RETRY_S", 0.01)
    log = EventLog(path)
    tee = log.tee()
    begun = time.perf_counter()
    log.publish(Warned(message="kept"))
    assert time.perf_counter() - begun < 0.1, "publishing waited for the disk"
    time.sleep(0.1)
    assert not log.sync(timeout=0.05)
    shown = [record.event for line in tee.read() if (record := decode(line))]
    assert shown == [Warned(message="kept"), LogFailed(error="[Errno 28] No space left on device")]
    full.clear()
    assert log.sync(timeout=5)
    log.close()
    kept, recovered = (record.event for record in read_records(path))
    assert kept == Warned(message="kept")
    assert isinstance(recovered, LogRecovered), "also for readers of the file"
    assert recovered.seconds > 0


def test_step_arrays_are_dropped_before_durable_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = threading.Event()
    write = os.write

    def slow_write(fd: int, data: bytes) -> int:
        if threading.current_thread().name == "event-log":
            blocked.wait(10)
        return write(fd, data)

    monkeypatch.setattr("trainer.run.log.writer.os.write", slow_write)
    log = EventLog(tmp_path / "events.jsonl", limit_bytes=20_000)
    log.publish(Warned(message="first"))
    time.sleep(0.05)
    for number in range(500):
        log.publish(steps(number))
        if number % 100 == 0:
            log.publish(Warned(message=f"durable {number}"))
    blocked.set()
    log.sync()
    log.publish(Warned(message="last"))
    log.close()
    events = [record.event for record in read_records(tmp_path / "events.jsonl")]
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "first", *(f"durable {n}" for n in range(0, 500, 100)), "last",
    ]  # fmt: skip
    kept = [e for e in events if isinstance(e, Steps)]
    gaps = [e.dropped_events for e in events if isinstance(e, Gap)]
    assert 0 < len(kept) < 500
    assert sum(gaps) == 500 - len(kept)
    assert kept[-1].first_step == 499, "the newest steps are kept"


def test_a_reader_that_falls_behind_continues_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.run.log.writer.TEE_LIMIT_BYTES", 10_000)
    log = EventLog(tmp_path / "events.jsonl")
    log.publish(Warned(message="before"))
    log.sync()
    source, late = LiveSource(RunDir(tmp_path), log), LiveSource(RunDir(tmp_path), log, history=False)
    view = RunView()

    def fold() -> None:
        while lines := source.read():
            for line in lines:
                record = decode(line)
                assert record is not None
                apply(view, record)

    log.publish(steps(1))
    fold()
    for number in range(2, 500):
        log.publish(steps(number))
    log.sync()
    assert not source._tee.read(), "nothing is buffered for a slow reader"
    fold()
    assert view.seq == 499
    log.publish(Warned(message="after"))
    log.close()
    fold()
    assert [note.text for note in view.notes] == ["before", "after"]
    assert len(late.read()) == 501


def test_a_deleted_log_is_an_error_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    follower = LogReader(tmp_path / "events.jsonl")
    assert follower.read() == []
    log = EventLog(tmp_path / "events.jsonl")
    log.publish(Warned(message="hello"))
    log.close()
    assert len(follower.read()) == 1
    (tmp_path / "events.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        follower.read()
