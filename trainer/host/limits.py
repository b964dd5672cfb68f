"""CPUs and memory that this process may use, limited by the machine, the affinity mask and control groups (containers).

Source: Linux kernel, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNIFIED = ""  # the only controller of cgroup v2 in /proc/self/cgroup


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory: the smallest limit, and what can be allocated without swapping or being killed."""

    total: int
    available: int


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs for this process, at least 1, from its affinity mask and the quotas of its control groups, rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def has_quota(root: Path = Path("/")) -> bool:
    """Whether a quota allows fewer CPUs than the affinity mask, which libraries use to count them."""
    return hasattr(os, "sched_getaffinity") and usable_cpus(root) < len(os.sched_getaffinity(0))


def usable_memory(root: Path = Path("/")) -> Memory:
    """Main memory for this process: the machine's, or less if one of its control groups has a limit."""
    import psutil  # not before the first frame

    machine = psutil.virtual_memory()
    found = [(machine.total, machine.available), *_memory_limits(root)]
    return Memory(min(total for total, _ in found), max(0, min(available for _, available in found)))


def _quotas(root: Path) -> Iterator[float]:
    """Average number of CPUs that each control group with a quota may use."""
    for folder in _groups(root, _UNIFIED):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # "max" is not a number, and no limit
    for folder in _groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                yield quota_us / int((folder / "cpu.cfs_period_us").read_text())


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and available rest in bytes, for each control group that has a limit."""
    names = (
        (_UNIFIED, "memory.max", "memory.current", "inactive_file"),
        (_UNIFIED, "memory.high", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for controller, limit_name, used_name, cached_name in names:
        for folder in _groups(root, controller):
            with contextlib.suppress(OSError, ValueError):
                limit, used = int((folder / limit_name).read_text()), int((folder / used_name).read_text())
                # The kernel frees pages of files that were not read lately before it kills a process.
                yield limit, limit - used + _cached(folder / "memory.stat", cached_name)


def _cached(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(dict(line.split(maxsplit=1) for line in path.read_text().splitlines()).get(name, 0))
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of a controller's control group and of all visible ones above it, whose limits all apply."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    mounts = root / "sys" / "fs" / "cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        names = [controllers, controller] if controller else ["", "unified"]
        # A container may see its own group as the root, although /proc names the path on the machine.
        for mount in (mounts / name for name in names):
            group = mount / path.strip("/")
            while group != mount:
                yield group
                group = group.parent
            yield mount
