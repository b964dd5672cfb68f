"""Bit for bit: what `run.deterministic` asks of torch, and what a resume must find again for it.

Every random draw is a hash of seed, epoch and position, so the data are the same in any case. What may differ from run to run is
the order in which numbers are added up: on a GPU within some operations, on a CPU with the number of threads.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from trainer.model.device import describe_device
from trainer.model.versions import software_versions


def set_deterministic(wanted: bool) -> None:
    """Let torch take deterministic operations only, or any; one that has no deterministic form then raises with its name.

    It holds for the rest of the process. Must be called before the first operation on a GPU.

    Source: torch's notes on reproducibility.
    """
    if wanted:
        # Read when cuBLAS starts; without it its results depend on which stream found which workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False  # it times, and may choose another algorithm in the next process
    torch.use_deterministic_algorithms(wanted)


def surroundings(device: torch.device) -> dict[str, Any]:
    """What the last bits of a result depend on, beside the program and its configuration."""
    facts = {"torch": software_versions()["torch"], "device": describe_device(device)["name"]}
    return facts | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})


def take_over(recorded: dict[str, Any], device: torch.device) -> list[str]:
    """Work with as many threads as the run was begun with, and name what is not as it was.

    Args:
        recorded: The `surroundings` of the checkpoint; empty for one that has none.
        device: That trains now.

    Returns:
        Warnings for the user.
    """
    if device.type == "cpu" and "threads" in recorded:
        torch.set_num_threads(int(recorded["threads"]))
    now = surroundings(device)
    changed = [
        f"{name} {recorded[name]} -> {now[name]}" for name in now if name in recorded and recorded[name] != now[name]
    ]
    if not recorded:
        changed = ["its checkpoint does not say on what it was trained"]
    if not changed:
        return []
    return [
        f"run.deterministic: the same order of the data, but not bit for bit as without the stop: {'; '.join(changed)}"
    ]
