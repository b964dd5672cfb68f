"""Classifies the errors of torch and the system for a decoding worker that died, is late, or cannot be started."""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Cause of the death of workers, described for people, and whether it was too little shared memory."""

    text: str
    of_shared_memory: bool


def is_timeout(error: Exception) -> bool:
    """Whether the error is only the loader's timeout."""
    return "DataLoader timed out" in str(error)


def is_worker_death(error: Exception) -> bool:
    """Whether the worker is gone, rather than only passing on an error.

    torch has no exception type for this. "Caught ... in DataLoader worker" is an error passed on by a live worker; only a lack of
    memory there counts as its death.
    """
    text = str(error)
    gone = isinstance(error, (ConnectionError, EOFError, FileNotFoundError, MemoryError))
    died = ("DataLoader worker" in text and "Caught" not in text) or "Pin memory thread exited" in text
    return gone or died or _lacks_shared_memory(text)


def cause_of_death(exit_codes: Collection[int | None], error: Exception) -> Cause:
    """Determine why a worker died, from the loader's error and the exit codes of workers that ended by themselves.

    Outside the main thread torch reports only "exited unexpectedly".
    """
    if -signal.SIGBUS in exit_codes:
        return Cause("no room in shared memory (bus error)", True)
    if -signal.SIGKILL in exit_codes:
        return Cause("killed (by the system, if memory ran out)", False)
    # The last line: the worker's traceback is above it, if there was time for one.
    reason = str(error).strip().rpartition("\n")[2][:200] or type(error).__name__
    return Cause(reason, _lacks_shared_memory(str(error)))


def _lacks_shared_memory(text: str) -> bool:
    return "shared memory" in text or "file </torch_" in text
