"""Position in a run's log up to which a tracker has received it: a small file beside the tracker's, with a lock."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from trainer.errors import RunError
from trainer.host.atomic_files import try_lock, write_atomically

_LOOK_EVERY_S = 0.5


class Position:
    """Position in the log, locked by one process at a time while in its `with` block.

    `seq` is the last log line passed on (-1: none), and `step` its step. `identity` joins the sessions of a run.
    """

    def __init__(self, folder: Path, wait: Callable[[], bool] = lambda: False) -> None:
        self._path = folder / "position.json"
        self._wait = wait  # for another process that holds the lock, which may be about to end
        self._lock = -1
        self.seq, self.step, self.identity = -1, 0, secrets.token_hex(6)

    def __enter__(self) -> Position:
        """Take the lock and read the position; RunError when another process holds the lock."""
        self._lock = os.open(self._path.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not self._taken():
            if not self._wait():
                os.close(self._lock)
                raise RunError(
                    f"{self._path.parent}: another process is already syncing this run; it ends when training ends"
                )
            time.sleep(_LOOK_EVERY_S)
        self._read()
        return self

    def _taken(self) -> bool:
        # On a file system without locks the only protection is that the run's trainer starts one process per tracker.
        return try_lock(self._lock, fcntl.LOCK_EX) is not False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def move(self, seq: int, step: int) -> None:
        """Store the position of a line, once everything up to it would survive a crash."""
        if (seq, step) != (self.seq, self.step):
            self.seq, self.step = seq, step
            self._write()

    def _write(self) -> None:
        record = {"seq": self.seq, "step": self.step, "identity": self.identity}
        write_atomically(self._path, json.dumps(record).encode())

    def _read(self) -> None:
        try:
            record = json.loads(self._path.read_bytes())
            self.seq, self.step, self.identity = int(record["seq"]), int(record["step"]), str(record["identity"])
        except FileNotFoundError:
            self._write()  # stores the identity before the tracker receives it
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._path}: cannot be read ({error}); delete it to sync the whole run again") from error
