"""Prepares a process for training on the CPU: memory that a step frees is kept, and waiting threads sleep soon.

Memory: every step allocates and frees the same activations. By default glibc returns them to the kernel, and
heaps of further threads cannot hold a large tensor, so each step causes tens of thousands of page faults.

Threads: by default GNU OpenMP's threads spin for milliseconds at the end of each of a step's hundreds of parallel loops. When
another program needs a core, the last part of a loop waits behind them. With a limit they sleep after a tenth of a millisecond.

`benchmarks/training_speed.py` measures benefit and cost. Sources: mallopt(3), Linux man-pages 6; libgomp manual,
4.21 OMP_WAIT_POLICY and 4.24 GOMP_SPINCOUNT.
"""

from __future__ import annotations

import ctypes
import os

from trainer.host.limits import has_quota, usable_cpus

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_TRIM_ABOVE_BYTES = 2**31 - 1
_MAP_FROM_BYTES = 2**30, 2**25
"""Block sizes from which a block is its own mapping and is returned at once: whole data sets, not activations. Older
versions of glibc accept only the second."""
_SPIN_COUNT = 2000


def tune_process() -> None:
    """Keep freed memory and limit spinning. Call before importing PyTorch and before any other thread starts."""
    keep_freed_memory()
    limit_spinning()


def keep_freed_memory() -> bool:
    """Configure glibc's allocator, before any other thread keeps its arena; False if the C library is another or refuses."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # The first call disables glibc's adaptive threshold, so nothing else is set if no value is accepted.
    if not any(mallopt(_M_MMAP_THRESHOLD, size) for size in _MAP_FROM_BYTES):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_ABOVE_BYTES) and mallopt(_M_ARENA_MAX, 1))


def limit_spinning() -> None:
    """Limit spinning unless the user has set a policy, and threads to a quota of CPUs. Call before importing PyTorch."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPIN_COUNT))
    if has_quota():  # libraries only see the affinity mask, and more threads than CPUs wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
