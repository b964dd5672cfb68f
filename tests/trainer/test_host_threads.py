"""Threads that wait for each other leave the cores to others, unless the user wants otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = "from trainer.host_threads import let_waiting_threads_sleep; let_waiting_threads_sleep(); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch comes with another OpenMP")
@pytest.mark.parametrize(
    ("chosen", "policy"),
    [({}, "2000"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "77"}, "77")],
)
def test_openmp_is_told_before_pytorch_loads_it(chosen: dict[str, str], policy: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **chosen}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, check=True)
    lines = [line for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line or "GOMP_SPINCOUNT" in line]
    assert any(policy in line for line in lines), lines
