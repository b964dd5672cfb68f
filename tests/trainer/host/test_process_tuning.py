"""Waiting threads of OpenMP sleep, unless the user has chosen otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainer.host import process_tuning

_PROGRAM = "from trainer.host.process_tuning import limit_spinning; limit_spinning(); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch comes with another OpenMP")
@pytest.mark.parametrize(
    ("chosen", "policy"),
    [({}, "2000"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "77"}, "77")],
)
def test_openmp_is_configured_before_pytorch_loads_it(chosen: dict[str, str], policy: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **chosen}
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, check=True
    )
    lines = [line for line in result.stderr.splitlines() if "OMP_WAIT_POLICY" in line or "GOMP_SPINCOUNT" in line]
    assert any(policy in line for line in lines), lines


@pytest.mark.parametrize(("quota", "chosen", "threads"), [(True, None, "3"), (True, "7", "7"), (False, None, None)])
def test_a_cpu_quota_limits_the_threads_unless_set_by_the_user(
    quota: bool, chosen: str | None, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tuning, "has_quota", lambda: quota)
    monkeypatch.setattr(process_tuning, "usable_cpus", lambda: 3)
    monkeypatch.setattr(os, "environ", {} if chosen is None else {"OMP_NUM_THREADS": chosen})
    process_tuning.limit_spinning()
    assert os.environ.get("OMP_NUM_THREADS") == threads
