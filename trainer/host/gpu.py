"""Detects a GPU without torch, which may be unable to use it."""

from __future__ import annotations

from pathlib import Path

_AMD_MEMORY = 4 * 2**30  # bytes of its own memory from which an AMD GPU is one to train on, and not part of a CPU


def gpu_present(dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> bool:
    """Whether the machine has a GPU to train on, by the files of its driver or by NVML, independent of torch."""
    return any(dev.glob("nvidia[0-9]*")) or driver_version() is not None or amd_gpu_present(sys)


def amd_gpu_present(sys: Path = Path("/sys")) -> bool:
    """Whether the driver of AMD's GPUs lists one with memory of its own. Source: Linux, amdkfd, kfd_topology.c."""
    banks = sys.glob("class/kfd/kfd/topology/nodes/*/mem_banks/*/properties")
    return any(_is_video_memory(bank) for bank in banks)


def _is_video_memory(bank: Path) -> bool:
    try:
        words = bank.read_text().split()
        facts = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    except (OSError, ValueError):  # as another version of the driver may write it
        return False
    of_a_gpu = facts.get("heap_type") in (1, 2)  # public or private; 0 is memory of the CPU
    return of_a_gpu and facts.get("size_in_bytes", 0) >= _AMD_MEMORY


def driver_version() -> str | None:
    """The NVIDIA driver's version; None without a driver that sees a GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion()) if pynvml.nvmlDeviceGetCount() else None
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
