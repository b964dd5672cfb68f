"""Detects a GPU without torch, which may be unable to use it."""

from __future__ import annotations

from pathlib import Path


def gpu_present(dev: Path = Path("/dev")) -> bool:
    """Whether the machine has an NVIDIA GPU, by its device files or by NVML, independent of torch."""
    return any(dev.glob("nvidia[0-9]*")) or driver_version() is not None


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
