"""Checks of memory, disk and locks, and the result type of `doctor`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.host.atomic_files import free_bytes, probe
from trainer.host.limits import usable_memory


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str  # what was checked
    state: str  # `good`, `warning`, or `bad`: a run cannot start
    found: str  # for people
    remedy: str = ""  # empty when the state is good


_CHECKPOINT_BYTES = 90 * 2**20  # ResNet-18 with momentum in fp32
_ROOM_FOR_CHECKPOINTS = 6
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its free space is read
_LEAST_SHARED_BYTES = 256 * 2**20
GIB = 2**30


def preflight(runs_dir: Path) -> list[str]:
    """Problems of memory, disk and locks at the start of a run, as lines for people; empty if there are none."""
    found = [memory_check(), *disk_checks(runs_dir)]  # shared memory is checked where workers use it
    return [f"{check.name}: {check.found}; {check.remedy}" for check in found if check.state != "good"]


def memory_check() -> Check:
    """Check whether there is enough memory for a run."""
    memory = usable_memory()
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < 2 * GIB:
        return Check("memory", "warning", found, "close other programs, or lower data.batch_size")
    return Check("memory", "good", found)


def shared_memory_check() -> Check:
    """Check whether worker processes have enough shared memory to send batches."""
    if not _SHARED_MEMORY.is_dir():
        return Check("shared memory", "good", "not needed on this system")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    found = f"{_SHARED_MEMORY}: {free / 2**20:,.0f} MiB free"
    if free < _LEAST_SHARED_BYTES:
        return Check(
            "shared memory", "warning", found,
            "decoding workers use pipes instead, which is slower; start the container with --shm-size=1g",
        )  # fmt: skip
    return Check("shared memory", "good", found)


def disk_checks(runs_dir: Path) -> Iterator[Check]:
    """Check free space, permissions and locks in the folder of runs."""
    place = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents) if path.is_dir())
    free = free_bytes(place)
    found = f"{place}: {free / GIB:.1f} GiB free" if math.isfinite(free) else f"{place}: free space unknown"
    if free < 2 * _CHECKPOINT_BYTES:
        yield Check("disk", "bad", found, "no room for a checkpoint: free some space, or use --runs-dir DIR")
    elif free < _ROOM_FOR_CHECKPOINTS * _CHECKPOINT_BYTES:
        yield Check("disk", "warning", found, "a run keeps several checkpoints of 90 MB: free some space")
    else:
        yield Check("disk", "good", found)
    try:
        locks = probe(place)
    except OSError as error:
        remedy = "keep runs on a writable disk: --runs-dir DIR"
        yield Check("run folder", "bad", f"{place}: {error}", remedy)
        return
    if not locks:
        yield Check(
            "run folder", "warning", f"{place} cannot lock files: a run counts as live while its log is recent",
            "after a kill, wait 45 s before resuming, or keep runs on another disk: --runs-dir DIR",
        )  # fmt: skip
    else:
        yield Check("run folder", "good", f"{place} can be written and locked")
