"""Versions of the software that numeric results depend on."""

from __future__ import annotations

import platform

import torch
import torchvision

import trainer


def software_versions() -> dict[str, str]:
    """Versions by name; `cuda` is empty where torch is built without it."""
    return {
        "r18-tui": trainer.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda or "",
    }


def torch_release() -> tuple[int, int]:
    """Major and minor version of torch. A preview of 2.9, as in NVIDIA's images, counts as 2.9."""
    major, minor = torch.__version__.split("+")[0].split(".")[:2]
    return int(major), int(minor)
