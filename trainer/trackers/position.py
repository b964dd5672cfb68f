"""How far a run was passed on to a tracker: a small file beside what the tracker keeps, and the right to write it."""

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
    """Held by one process at a time, from `with` to its end.

    Attributes:
        seq: Of the last line of the log that was passed on; -1 for none.
        step: That it belongs to.
        identity: Of the run, for trackers that join sessions by it.
    """

    def __init__(self, folder: Path, wait: Callable[[], bool] = lambda: False) -> None:
        """Nothing is taken yet.

        Args:
            folder: Of the tracker.
            wait: Whether to wait for another process that has it, which may just be ending.
        """
        self._path = folder / "position.json"
        self._wait = wait
        self._lock = -1
        self.seq, self.step, self.identity = -1, 0, secrets.token_hex(6)

    def __enter__(self) -> Position:
        """Take it.

        Raises:
            RunError: When another process has it.
        """
        self._lock = os.open(self._path.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not self._taken():
            if not self._wait():
                os.close(self._lock)
                raise RunError(
                    f"{self._path.parent}: another process passes this run on; it ends with the run's trainer"
                )
            time.sleep(_LOOK_EVERY_S)
        self._read()
        return self

    def _taken(self) -> bool:
        # Without locks the run's trainer, which starts one process for each tracker, is all that keeps others away.
        return try_lock(self._lock, fcntl.LOCK_EX) is not False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave it to others."""
        os.close(self._lock)

    def move(self, seq: int, step: int) -> None:
        """Remember that everything up to a line is where a crash leaves it."""
        if (seq, step) != (self.seq, self.step):
            self.seq, self.step = seq, step
            self._write()

    def _write(self) -> None:
        told = {"seq": self.seq, "step": self.step, "identity": self.identity}
        write_atomically(self._path, json.dumps(told).encode())

    def _read(self) -> None:
        try:
            told = json.loads(self._path.read_bytes())
            self.seq, self.step, self.identity = int(told["seq"]), int(told["step"]), str(told["identity"])
        except FileNotFoundError:
            self._write()  # the identity, before the tracker is told
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self._path}: cannot be read ({error}); delete it, and the run is passed on anew"
            ) from error
