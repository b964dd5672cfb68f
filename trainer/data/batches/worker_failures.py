"""What torch and the system say when a decoding worker has died, is late, or cannot be started."""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why workers died.

    Attributes:
        text: For people.
        of_shared_memory: Whether there was too little of it.
    """

    text: str
    of_shared_memory: bool


def is_late(error: Exception) -> bool:
    """Whether the loader has only waited for as long as it was told to."""
    return "DataLoader timed out" in str(error)


def is_of_a_dead_worker(error: Exception) -> bool:
    """Whether the worker has gone, and did not only pass an error on.

    torch raises no type of its own. "Caught ... in DataLoader worker" is a worker's own error, passed on alive; only that it has
    too little memory is as good as its death.
    """
    text = str(error)
    gone = isinstance(error, (ConnectionError, EOFError, FileNotFoundError, MemoryError))
    died = ("DataLoader worker" in text and "Caught" not in text) or "Pin memory thread exited" in text
    return gone or died or _lacks_shared_memory(text)


def cause_of_death(exit_codes: Collection[int | None], error: Exception) -> Cause:
    """Why a worker died.

    Args:
        exit_codes: Of workers that ended by themselves; outside the main thread torch says only "exited unexpectedly".
        error: That the loader raised.
    """
    if -signal.SIGBUS in exit_codes:
        return Cause("no room in shared memory (bus error)", True)
    if -signal.SIGKILL in exit_codes:
        return Cause("killed (by the system, if memory ran out)", False)
    # The last line: above it stands the worker's traceback, if it had the time for one.
    reason = str(error).strip().rpartition("\n")[2][:200] or type(error).__name__
    return Cause(reason, _lacks_shared_memory(str(error)))


def _lacks_shared_memory(text: str) -> bool:
    return "shared memory" in text or "file </torch_" in text
