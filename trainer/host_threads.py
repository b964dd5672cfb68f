"""Lets the threads of PyTorch's pool sleep while they wait for each other.

By default GNU OpenMP's threads spin for milliseconds at the end of every parallel loop, of which a training step has hundreds.
Where something else needs a core, a second training or a compiler, the loop's last part waits for its turn behind threads that
only wait themselves. `benchmarks/training_speed.py` measures what that costs.

Source: libgomp manual, 4.21 OMP_WAIT_POLICY.
"""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Choose so for this process and what it starts, unless the user has chosen. To be called before PyTorch is imported."""
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
