"""Chooses the training device: never the CPU by accident on a machine that has a GPU."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import Any, Literal

import torch

from trainer.errors import DeviceError, first_line
from trainer.host.gpu import amd_gpu_present, driver_version, gpu_present
from trainer.host.torchrun import local_rank, local_world_size
from trainer.model.numerics import allow_tf32


def choose_device(wanted: str) -> torch.device:
    """Resolve `run.device`: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`. Each of several processes takes a GPU of its own.

    DeviceError when the device does not exist, or `auto` finds a GPU that torch cannot use.
    """
    if wanted == "auto":
        return _automatic()
    if wanted.startswith("cuda"):
        if not torch.cuda.is_available():
            raise DeviceError(f"run.device: {wanted} requested, but {_why_no_cuda()}; or set run.device=cpu")
        if ":" in wanted and local_world_size() > 1:
            raise DeviceError(
                f"run.device: {wanted} is one GPU, but {local_world_size()} processes share this machine: set run.device=cuda "
                "to give each its own"
            )
        index = int(wanted.partition(":")[2] or local_rank())
        if index >= torch.cuda.device_count():
            raise DeviceError(
                f"run.device: {wanted} requested, but this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}"
            )
        return _checked_gpu(torch.device("cuda", index))
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("run.device: mps requested, but this torch or machine has no Apple GPU; set run.device=cpu")
    return torch.device(wanted)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name, kind and memory for the header and `env.json`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "kind": "cuda",
            "name": properties.name,
            "total_bytes": properties.total_memory,
            "uuid": str(properties.uuid),
        }
    if device.type == "mps":
        return {"kind": "mps", "name": "Apple GPU", "total_bytes": int(torch.mps.recommended_max_memory())}
    return {"kind": "cpu", "name": f"{_cpu_name()}, {torch.get_num_threads()} threads"}


@functools.cache
def side_stream(device: torch.device, purpose: Literal["steps", "snapshots"]) -> torch.cuda.Stream:
    """The stream of a GPU for a purpose, always the same: torch has few of them, and hands them out in turn."""
    return torch.cuda.Stream(device)


def free_cached_memory() -> None:
    """Return unused memory of torch's allocator to the GPU; does nothing where there is none."""
    # Before torch 2.12 the allocator may believe that a graph's capture which failed is still going on, and refuse
    # (pytorch/pytorch#180395).
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def _automatic() -> torch.device:
    if torch.cuda.is_available():
        return choose_device("cuda")
    if gpu_present():
        raise DeviceError(f"this machine has a GPU, but {_why_no_cuda()}. To train on the CPU anyway: run.device=cpu")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _checked_gpu(device: torch.device) -> torch.device:
    """Test a GPU, since torch lists even those it has no kernels for; make it the current device and return it."""
    try:
        torch.ones(1, device=device).add_(1).item()
        torch.cuda.set_device(device)
        allow_tf32(False)  # until a training chooses it
    except RuntimeError as error:
        said = first_line(error)
        remedy = (
            "Install a build of torch that supports this GPU"
            if "no kernel image" in said
            else "Check with nvidia-smi which process uses it, or choose another with run.device=cuda:N"
        )
        raise DeviceError(
            f"{device}: torch {torch.__version__}, built for CUDA {torch.version.cuda}, cannot compute on it (driver "
            f"{driver_version()}): {said}. {remedy}, or set run.device=cpu"
        ) from error
    return device


def has_tf32(device: torch.device) -> bool:
    """Whether a device has TF32 units: NVIDIA's GPUs from Ampere on."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _why_no_cuda() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it"
    built = torch.version.cuda
    if driver_version() is None and amd_gpu_present():
        return f"torch {torch.__version__} cannot use AMD's GPU: install a build for ROCm (https://pytorch.org/get-started)"
    if built is None:
        return (
            f"torch {torch.__version__} is built without CUDA (driver {driver_version() or 'none'}): install a build of torch "
            f"for CUDA (https://pytorch.org/get-started)"
        )
    driver = driver_version()
    if driver is None:
        return f"no NVIDIA driver responds (torch {torch.__version__} is built for CUDA {built}): check nvidia-smi"
    return (
        f"torch {torch.__version__}, built for CUDA {built}, cannot use driver {driver}: "
        f"update the driver or install a torch built for an older CUDA"
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return "CPU"
    return "CPU"
