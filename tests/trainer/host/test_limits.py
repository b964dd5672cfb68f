"""CPUs and memory of containers, batch systems and cpusets."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import torch

from trainer.config.data_config import DataConfig
from trainer.data import prepare as build
from trainer.host import health
from trainer.host.limits import Memory, has_quota, usable_cpus, usable_memory
from trainer.session import system_monitor

GIB = 2**30
V2 = "sys/fs/cgroup"
DOCKER_V1 = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 CPUs and 256 GiB of memory, of which 200 are free."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    memory = psutil.virtual_memory()._replace(total=256 * GIB, available=200 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


LIMITS = {
    "no control groups": ("", {}, 64, 256, 200),
    "v2, no limit": ("0::/\n", {f"{V2}/cpu.max": "max 100000\n", f"{V2}/memory.max": "max\n"}, 64, 256, 200),
    "v2 in a container": (
        "0::/\n",
        {
            f"{V2}/cpu.max": "150000 100000\n", f"{V2}/memory.max": str(8 * GIB), f"{V2}/memory.current": str(5 * GIB),
            f"{V2}/memory.stat": f"anon 1\ninactive_file {2 * GIB}\nactive_file 3\n",
        },
        2, 8, 5,
    ),
    "v2, a limit above": (
        "0::/slurm/job_7/step_0\n",
        {
            f"{V2}/slurm/job_7/cpu.max": "400000 100000", f"{V2}/slurm/job_7/memory.max": str(16 * GIB),
            f"{V2}/slurm/job_7/memory.current": str(6 * GIB), f"{V2}/slurm/job_7/step_0/memory.max": "max",
            f"{V2}/slurm/job_7/step_0/memory.current": "1",
        },
        4, 16, 10,
    ),
    "v2, throttled": ("0::/a\n", {f"{V2}/a/memory.high": str(3 * GIB), f"{V2}/a/memory.current": str(4 * GIB)}, 64, 3, 0),
    "v1, paths of the machine": (
        DOCKER_V1,
        {
            f"{V2}/cpu,cpuacct/cpu.cfs_quota_us": "50000", f"{V2}/cpu,cpuacct/cpu.cfs_period_us": "100000",
            f"{V2}/memory/memory.limit_in_bytes": str(4 * GIB), f"{V2}/memory/memory.usage_in_bytes": str(3 * GIB),
            f"{V2}/memory/memory.stat": f"cache 5\ntotal_inactive_file {GIB}\n",
        },
        1, 4, 2,
    ),
    "v1, no limit": (
        DOCKER_V1,
        {
            f"{V2}/cpu/docker/abc/cpu.cfs_quota_us": "-1", f"{V2}/cpu/docker/abc/cpu.cfs_period_us": "100000",
            f"{V2}/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712",
            f"{V2}/memory/docker/abc/memory.usage_in_bytes": str(3 * GIB),
        },
        64, 256, 200,
    ),
    "v1 and v2 at once": (
        "5:memory:/a\n0::/b\n",
        {
            f"{V2}/memory/a/memory.limit_in_bytes": str(4 * GIB), f"{V2}/memory/a/memory.usage_in_bytes": "0",
            f"{V2}/unified/b/cpu.max": "300000 100000",
        },
        3, 4, 4,
    ),
    "nonsense": ("0::/\n", {f"{V2}/cpu.max": "many", f"{V2}/memory.max": "", f"{V2}/memory.current": "x"}, 64, 256, 200),
}  # fmt: skip


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", LIMITS)
def test_the_smallest_limit_of_all_control_groups_applies(name: str, tmp_path: Path) -> None:
    cgroup, files, cpus, total, available = LIMITS[name]
    for path, content in {"proc/self/cgroup": cgroup, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert usable_cpus(tmp_path) == cpus
    assert has_quota(tmp_path) == (cpus < 64)
    assert usable_memory(tmp_path) == Memory(total * GIB, available * GIB)


@pytest.mark.usefixtures("machine")
def test_the_affinity_mask_limits_the_cpus_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5}, raising=False)
    assert usable_cpus(tmp_path) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cpus(tmp_path) == os.cpu_count()


def test_workers_caches_and_readings_respect_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(total=3 * GIB, available=GIB)
    for module in (build, health, system_monitor):
        monkeypatch.setattr(module, "usable_memory", lambda: memory)
    monkeypatch.setattr(build, "usable_cpus", lambda: 3)
    images = DataConfig(kind="imagefolder", image_size=1024)
    assert build.worker_count(images) == 2
    assert build.place_pixels(images, 150, torch.device("cpu")) == "device"
    assert build.place_pixels(images, 200, torch.device("cpu")) == "none"
    assert any("1.0 of 3.0 GiB free" in line for line in health.preflight(Path()))
    (read,) = system_monitor.readers_for(torch.device("cpu"))
    readings = read()
    assert (readings["system_total_bytes"], readings["system_used_bytes"]) == (3 * GIB, 2 * GIB)
