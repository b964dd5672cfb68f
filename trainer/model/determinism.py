"""Bit-for-bit determinism: torch's settings for `run.deterministic`, and the facts that a resume compares.

Every random draw is a hash of seed, epoch and position, so the data are the same in any case. The order of summation
may differ from run to run: on a GPU within some operations, on a CPU with the number of threads.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from trainer.model.device import describe_device
from trainer.model.versions import software_versions


def set_deterministic(wanted: bool) -> None:
    """Allow only deterministic operations of torch, or all; one without a deterministic form then raises an error.

    Holds for the rest of the process; call it before the first operation on a GPU. Source: torch's notes on reproducibility.
    """
    if wanted:
        # Read when cuBLAS starts; without it results depend on which stream got which workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # It times, and may choose another algorithm in the next process.
    torch.backends.cudnn.benchmark = not wanted
    torch.use_deterministic_algorithms(wanted)


def surroundings(device: torch.device) -> dict[str, Any]:
    """Facts that the last bits of a result depend on, apart from the program and its configuration."""
    facts = {"torch": software_versions()["torch"], "device": describe_device(device)["name"]}
    return facts | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})


def restore_surroundings(recorded: dict[str, Any], device: torch.device) -> list[str]:
    """Use as many threads as the run began with, and return warnings about everything that changed since.

    `recorded` is `surroundings` from the checkpoint; empty where it has none.
    """
    if device.type == "cpu" and "threads" in recorded:
        torch.set_num_threads(int(recorded["threads"]))
    now = surroundings(device)
    changed = [
        f"{name} {recorded[name]} -> {now[name]}" for name in now if name in recorded and recorded[name] != now[name]
    ]
    if not recorded:
        changed = ["its checkpoint does not record its device and versions"]
    if not changed:
        return []
    return [
        f"run.deterministic: same data order, but results differ in bits from a run without the stop: {'; '.join(changed)}"
    ]
