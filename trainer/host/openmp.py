"""Keeps the threads of PyTorch's pool from spinning for long while they wait for each other.

By default GNU OpenMP's threads spin for some 300,000 turns at the end of every parallel loop, of which a training step has
hundreds: milliseconds. Where something else needs a core, a second training or a compiler, the last part of each loop waits for
its turn behind threads that only wait themselves. After a tenth of a millisecond they sleep instead, which is long enough for
loops whose parts end together. `benchmarks/training_speed.py` measures what that is worth and costs.

Source: libgomp manual, 4.21 OMP_WAIT_POLICY and 4.24 GOMP_SPINCOUNT.
"""

from __future__ import annotations

import os

from trainer.host.limits import has_quota, usable_cpus

_TURNS = 2000


def let_waiting_threads_sleep() -> None:
    """Choose so for this process and what it starts, unless the user has chosen. To be called before PyTorch is imported.

    Where a container's quota leaves fewer CPUs than PyTorch would use, it also gets that many threads only.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_TURNS))
    if has_quota():  # the libraries know the affinity mask only, and more threads than CPUs wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
