"""Passes a run on to one tracker, from a finished log or as the log grows."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.config.trackers import TrackerName
from trainer.errors import RunError
from trainer.evaluation.picture_sheet import read_sheet
from trainer.host.atomic_files import try_lock, write_atomically
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import LogReader
from trainer.trackers.feed import Feed
from trainer.trackers.tracker import RunInfo, opener

_LOOK_EVERY_S = 1.0  # between looks at the log, and at a lock that another process holds


class Position:
    """The last log line (-1: none) and step that a tracker has received; `identity` joins the sessions of a run."""

    def __init__(self, path: Path) -> None:
        """Read the position, or store that of a new run: the identity before the tracker receives it."""
        self._path = path
        self.seq, self.step, self.identity = -1, 0, secrets.token_hex(6)
        try:
            record = json.loads(path.read_bytes())
            self.seq, self.step, self.identity = int(record["seq"]), int(record["step"]), str(record["identity"])
        except FileNotFoundError:
            self._write()
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot be read ({error}); delete it to sync the whole run again") from error

    def move(self, seq: int, step: int) -> None:
        """Store the position of a line, once everything up to it would survive a crash."""
        self.seq, self.step = seq, step
        self._write()

    def _write(self) -> None:
        record = {"seq": self.seq, "step": self.step, "identity": self.identity}
        write_atomically(self._path, json.dumps(record).encode())


@contextmanager
def locked_position(folder: Path, wait: Callable[[], bool] = lambda: False) -> Iterator[Position]:
    """Lock and read the position in a tracker's folder; RunError when another process has it and `wait` says not to wait."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # On a file system without locks the only protection is that the run's trainer starts one process per tracker.
        while try_lock(lock, fcntl.LOCK_EX) is False:
            if not wait():
                raise RunError(f"{folder}: another process is already syncing this run; it ends when training ends")
            time.sleep(_LOOK_EVERY_S)
        yield Position(folder / "position.json")
    finally:
        os.close(lock)


def relay_log(run_dir: RunDir, name: TrackerName, ended: Callable[[], bool]) -> Feed:
    """Pass a log on to a tracker, from where an earlier call ended until `ended`; returns the feed with the held calls.

    What is in the log when `ended` turns true is still read. RunError when another process passes the run on to this
    tracker; OSError when the log or the tracker's folder cannot be used.
    """
    folder = run_dir.sinks / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = read_run_config(run_dir).model_dump(mode="json")
    with locked_position(folder, wait=lambda: not ended()) as position:
        tracker = opener(name)(
            RunInfo(name=run_dir.name, identity=position.identity, folder=folder, config=config, step=position.step)
        )
        feed = Feed(tracker, lambda path, step: _picture(run_dir.path / path, step), position.seq, position.step)
        log, begun = LogReader(run_dir.events), position.seq
        try:
            over = False
            while not over:
                over = ended()
                for record in log.records():
                    feed.take(record)
                    if feed.seq != position.seq:
                        tracker.flush()
                        position.move(feed.seq, feed.step)
                if not over:
                    time.sleep(_LOOK_EVERY_S)
        finally:
            feed.bad_lines = log.bad_lines
            tracker.close(feed.results if feed.seq > begun else {})
        return feed


def _picture(path: Path, step: int) -> bytes | None:
    """Read a file of pictures if it is still that of a step."""
    try:
        before = path.stat().st_mtime_ns
        png = path.read_bytes() if read_sheet(path).facts.get("step") == step else None
        return png if path.stat().st_mtime_ns == before else None  # None: replaced in the meantime
    except (OSError, ValueError):
        return None
