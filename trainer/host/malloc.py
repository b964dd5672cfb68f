"""Keeps the memory that a training step frees, for the next step.

On the CPU every step allocates and frees the same activations. By default glibc returns them to the kernel, and heaps
of further threads cannot hold a large tensor at all, so each step causes tens of thousands of page faults on pages that
the kernel has to clear. `benchmarks/training_speed.py` measures the cost.

Source: mallopt(3), Linux man-pages 6.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_TRIM_ABOVE_BYTES = 2**31 - 1
_MAP_FROM_BYTES = 2**30, 2**25
"""Block sizes from which a block is its own mapping and is returned at once: whole data sets, not activations. Older
versions of glibc accept only the second."""


def keep_freed_memory() -> bool:
    """Configure glibc's allocator for training; False if the C library is another one or refuses.

    Call before the process has any other thread: a thread keeps its first arena.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # The first call disables glibc's adaptive threshold, so nothing else is set if no value is accepted.
    if not any(mallopt(_M_MMAP_THRESHOLD, size) for size in _MAP_FROM_BYTES):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_ABOVE_BYTES) and mallopt(_M_ARENA_MAX, 1))
