"""Position in a run's log up to which a tracker has received it: a small file beside the tracker's, with a lock."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import RunError
from trainer.host.atomic_files import try_lock, write_atomically

LOOK_EVERY_S = 1.0  # between looks at the log, and at a lock that another process holds


class Position:
    """Position in the log; `locked_position` reads it.

    `seq` is the last log line passed on (-1: none), and `step` its step. `identity` joins the sessions of a run.
    """

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
        if (seq, step) != (self.seq, self.step):
            self.seq, self.step = seq, step
            self._write()

    def _write(self) -> None:
        record = {"seq": self.seq, "step": self.step, "identity": self.identity}
        write_atomically(self._path, json.dumps(record).encode())


@contextmanager
def locked_position(folder: Path, wait: Callable[[], bool] = lambda: False) -> Iterator[Position]:
    """Lock and read the position in a tracker's folder; RunError when another process holds the lock.

    `wait`: whether to wait for that process, which may be about to end.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # On a file system without locks the only protection is that the run's trainer starts one process per tracker.
        while try_lock(lock, fcntl.LOCK_EX) is False:
            if not wait():
                raise RunError(f"{folder}: another process is already syncing this run; it ends when training ends")
            time.sleep(LOOK_EVERY_S)
        yield Position(folder / "position.json")
    finally:
        os.close(lock)
