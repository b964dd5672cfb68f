"""The append-only event log: one writer that never makes the trainer wait, and readers that follow it.

`EventLog.publish` stamps an event, encodes it once, and hands the same bytes to the file's writer thread and to every
memory tee, so a live screen folds exactly the bytes in the file (`LogFailed` alone is never on disk).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trainer.host.atomic_files import is_same_file, sync
from trainer.run.log.codec import checks_of, encode, parse_lines
from trainer.run.log.event import Event, Record
from trainer.run.log.run_events import Gap, LogFailed, LogRecovered, Warned

QUEUE_LIMIT_BYTES = 64 * 2**20  # queued, above which the oldest step arrays are dropped
TEE_LIMIT_BYTES = 64 * 2**20  # unread: a reader that a stalled terminal blocks for days must not fill the memory
_RETRY_S = 1.0
_CHUNK_BYTES = 2**20
_TAIL_BYTES = 2**16


class Observer(Protocol):
    """Interface of observers, called on the writer's thread for every event after it was appended."""

    def observe(self, record: Record) -> None:
        """Handle one record. Exceptions are reported in memory and stop nothing."""


class MemoryTee:
    """Passes published lines to a reader in the same process: filled by any thread, read by one."""

    def __init__(self) -> None:
        self.overflowed = False  # once true, unread lines and all later ones are only in the file
        self._lines: deque[bytes] = deque()
        self._added, self._taken = 0, 0

    def add(self, line: bytes) -> None:
        """Add a line. The log calls this under its lock; the reader takes no lock."""
        self._added += len(line)
        if self._added - self._taken > TEE_LIMIT_BYTES:
            self.overflowed = True
        if self.overflowed:
            self._lines.clear()
        else:
            self._lines.append(line)

    def read(self) -> list[bytes]:
        """All lines added since the last call."""
        lines = []
        while self._lines:
            try:
                lines.append(self._lines.popleft())
            except IndexError:
                break  # it has just overflowed
        self._taken += sum(map(len, lines))
        return lines


class EventLog:
    """The writer of `events.jsonl`. `publish` may be called from any thread and never waits for the disk."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        observers: tuple[Observer, ...] = (),
        limit_bytes: int = QUEUE_LIMIT_BYTES,
    ) -> None:
        """Open for appending, first ending a torn last line; OSError when the file cannot be opened."""
        self._clock = clock
        self._observers = observers
        self._limit_bytes = limit_bytes
        self._tees: list[MemoryTee] = []
        self._pending: deque[tuple[Record, bytes]] = deque()
        self._pending_bytes = 0
        self._dropped = 0
        self._appending = False
        self._closed = False
        self._failure = self._warned_of = ""
        self._failing_since: float | None = None
        self._wake = threading.Condition()
        self._file = threading.Lock()
        self._seq, torn = _read_end(path)
        self._fd = _open(path)
        self._rest = b"\n" if torn else b""
        self._thread = threading.Thread(target=self._write, name="event-log", daemon=True)
        self._thread.start()

    def tee(self) -> MemoryTee:
        """Create a reader of everything that is published from now on."""
        tee = MemoryTee()
        with self._wake:
            self._tees.append(tee)
        return tee

    def drop(self, tee: MemoryTee) -> None:
        """Stop filling a tee."""
        with self._wake:
            self._tees.remove(tee)

    def publish(self, event: Event) -> Record:
        """Append an event; returns it with its sequence number and time."""
        with self._wake:
            self._seq += 1
            # To the millisecond, as in the line: an observer of a live run sees the same times as a replay.
            record = Record(seq=self._seq, time=round(self._clock(), 3), event=event)
            line = encode(record)
            self._pending.append((record, line))
            self._pending_bytes += len(line)
            if self._pending_bytes > self._limit_bytes:
                self._drop_steps()
            for tee in self._tees:
                tee.add(line)
            self._wake.notify_all()
        return record

    def sync(self, timeout: float = 30.0) -> bool:
        """Wait until all is on disk; False after `timeout` seconds or while appending fails. Never for the training thread."""
        with self._wake:
            done = self._wake.wait_for(lambda: not self._pending and not self._rest and not self._appending, timeout)
            if not done or self._closed:
                return done
        with self._file, contextlib.suppress(OSError):  # some network file systems cannot: they have the data
            os.fsync(self._fd)
        return True

    def is_in(self, path: Path) -> bool:
        """Whether the log is written to the file at this path; the log's file may have been deleted."""
        return is_same_file(self._fd, path)

    def continue_in(self, path: Path) -> None:
        """Copy the log, whose file may have been deleted, and continue in the copy; on an OSError it keeps its old file."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with self._file:
            fd = _open(temporary)
            try:
                offset = 0
                while chunk := os.pread(self._fd, _CHUNK_BYTES, offset):
                    offset += len(chunk)
                    while chunk:
                        chunk = chunk[os.write(fd, chunk) :]
                sync(fd)
                os.replace(temporary, path)
            except OSError:
                os.close(fd)
                temporary.unlink(missing_ok=True)
                raise
            os.close(self._fd)
            self._fd = fd

    def close(self, timeout: float = 10.0) -> None:
        """Write what is left and close; gives up on a disk that fails for `timeout` seconds."""
        self.sync(timeout)
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._file.acquire(timeout=timeout):  # otherwise a write to a disk that does not respond is still under way
            os.close(self._fd)
            self._fd = -1
            self._file.release()

    def _drop_steps(self) -> None:
        kept: deque[tuple[Record, bytes]] = deque()
        for record, line in self._pending:
            if self._pending_bytes > self._limit_bytes // 2 and not record.event.durable:
                self._pending_bytes -= len(line)
                self._dropped += 1
            else:
                kept.append((record, line))
        self._pending = kept

    def _take(self) -> list[tuple[Record, bytes]]:
        with self._wake:
            self._wake.wait_for(lambda: self._pending or self._rest or self._closed)
            batch = list(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._appending = True
            return batch

    def _write(self) -> None:
        while True:
            batch = self._take()
            if not batch and not self._rest and self._closed:
                return
            self._rest += b"".join(line for _, line in batch)
            while not self._append(batch):
                if self._closed:
                    return
                time.sleep(_RETRY_S)
            with self._wake:
                self._appending = False
                self._wake.notify_all()

    def _append(self, batch: list[tuple[Record, bytes]]) -> bool:
        try:
            with self._file:
                while self._rest:
                    self._rest = self._rest[os.write(self._fd, self._rest) :]
        except OSError as error:
            if self._failing_since is None:
                self._failing_since = time.monotonic()
            self._report(str(error))
            return False
        self._failure = ""
        if self._failing_since is not None:
            seconds, self._failing_since = time.monotonic() - self._failing_since, None
            self.publish(LogRecovered(seconds=round(seconds, 1)))
        self._observe(batch)
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self.publish(Gap(dropped_events=dropped))
        return True

    def _observe(self, batch: list[tuple[Record, bytes]]) -> None:
        # The files of observers can be rebuilt from the log; the log itself must continue.
        for record, _ in batch:
            for observer in self._observers:
                try:
                    observer.observe(record)
                except Exception as error:  # noqa: BLE001 - as above
                    self._warn(f"{type(observer).__name__}: {error}; retrying at the next event")

    def _warn(self, problem: str) -> None:
        if problem != self._warned_of:
            self._warned_of = problem
            self.publish(Warned(message=problem))

    def _report(self, error: str) -> None:
        if error == self._failure:
            return
        self._failure = error
        with self._wake:
            line = encode(Record(seq=self._seq, time=self._clock(), event=LogFailed(error=error)))
            for tee in self._tees:
                tee.add(line)


def _open(path: Path) -> int:
    # Also for reading: `continue_in` copies a file that may have lost its name.
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _read_end(path: Path) -> tuple[int, bool]:
    """Sequence number of the last line that has one, whatever its kind (-1: none), and whether the last line is torn."""
    size = path.stat().st_size if path.exists() else 0
    length = _TAIL_BYTES
    while size:
        with path.open("rb") as file:
            file.seek(max(size - length, 0))
            tail = file.read()
        # The end of a long log is enough: numbers rise from line to line.
        found = parse_lines(tail.splitlines())
        numbers = [line["seq"] for line in found if "seq" in line and checks_of(Record)["seq"]([line["seq"]])]
        if numbers or length >= size:
            return max(numbers, default=-1), not tail.endswith(b"\n")
        length *= 16
    return -1, False
