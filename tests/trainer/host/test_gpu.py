"""GPUs are found by the files of their drivers, and by torchrun's variables only under torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config.data_config import DataConfig
from trainer.data import prepare
from trainer.data.prepare import place_pixels
from trainer.errors import DeviceError
from trainer.host import gpu
from trainer.host.limits import Memory
from trainer.host.torchrun import local_rank, local_world_size
from trainer.model import device as devices


def _bank(sys: Path, node: int, heap_type: int, size: int) -> None:
    folder = sys / f"class/kfd/kfd/topology/nodes/{node}/mem_banks/0"
    folder.mkdir(parents=True)
    (folder / "properties").write_text(f"heap_type {heap_type}\nsize_in_bytes {size}\nflags 0\nwidth 64\n")


@pytest.mark.parametrize(
    ("heap_type", "size", "present"),
    [(0, 64 * 2**30, False), (1, 512 * 2**20, False), (1, 16 * 2**30, True), (2, 4 * 2**30, True)],
    ids=["memory of the CPU", "GPU inside a CPU", "public memory", "private memory"],
)
def test_an_amd_gpu_with_memory_of_its_own_counts(tmp_path: Path, heap_type: int, size: int, present: bool) -> None:
    _bank(tmp_path, 0, 0, 32 * 2**30)
    _bank(tmp_path, 1, heap_type, size)
    assert gpu.amd_gpu_present(tmp_path) == present


def test_an_unknown_topology_is_no_gpu(tmp_path: Path) -> None:
    assert not gpu.amd_gpu_present(tmp_path)
    _bank(tmp_path, 0, 1, 2**34)
    (tmp_path / "class/kfd/kfd/topology/nodes/0/mem_banks/0/properties").write_text("heap_type one\n")
    assert not gpu.amd_gpu_present(tmp_path)


def test_an_amd_gpu_is_not_left_idle_by_a_torch_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for module in (gpu, devices):
        monkeypatch.setattr(module, "driver_version", lambda: None)
        monkeypatch.setattr(module, "amd_gpu_present", lambda *_: True)
    with pytest.raises(DeviceError, match=r"has a GPU, but torch .* cannot use AMD's GPU: install a build for ROCm"):
        devices.choose_device("auto")
    assert devices.choose_device("cpu").type == "cpu"


def test_a_stray_local_rank_moves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers and notebooks export it without torchrun."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for name in ("TORCHELASTIC_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (local_rank(), local_world_size()) == (0, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("RANK", "7")
    assert (local_rank(), local_world_size()) == (3, 4)


@pytest.mark.parametrize(("processes", "place"), [(1, "device"), (2, "device"), (4, "none")])
def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch, processes: int, place: str) -> None:
    import torch

    images, side = 1000, 100
    needed = images * side**2 * 3
    monkeypatch.setattr(prepare, "usable_memory", lambda: Memory(10 * needed, 5 * needed))
    monkeypatch.setattr(prepare, "local_world_size", lambda: processes)
    config = DataConfig(kind="imagefolder", root=".", image_size=side, crop_pct=1.0)
    assert place_pixels(config, images, torch.device("cpu")) == place
