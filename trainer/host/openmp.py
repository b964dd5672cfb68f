"""Limits the time that threads of PyTorch's pool spin while they wait for each other.

By default GNU OpenMP's threads spin for some 300,000 turns (milliseconds) at the end of every parallel loop, and a
training step has hundreds of loops. When another program needs a core, the last part of each loop waits behind threads
that only spin. With this limit they sleep after a tenth of a millisecond, long enough for loops whose parts end
together. `benchmarks/training_speed.py` measures benefit and cost.

Source: libgomp manual, 4.21 OMP_WAIT_POLICY and 4.24 GOMP_SPINCOUNT.
"""

from __future__ import annotations

import os

from trainer.host.limits import has_quota, usable_cpus

_SPIN_COUNT = 2000


def limit_spinning() -> None:
    """Limit spinning here and in child processes, unless the user has set a policy. Call before importing PyTorch."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPIN_COUNT))
    if has_quota():  # libraries only see the affinity mask, and more threads than CPUs wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
