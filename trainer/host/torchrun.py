"""Environment variables of `torchrun` for the processes of one training.

Source: PyTorch, torchrun (Elastic Launch), section Environment Variables.
"""

from __future__ import annotations

import os

LAUNCHED_BY = "R18_TUI_LAUNCHED_BY"
"""The program that starts these processes finds their run by its value, which the owner's facts include."""


def under_torchrun() -> bool:
    """Whether torchrun has started this process; it restarts it when one of them dies."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def world_size() -> int:
    """Number of processes that train together; 1 if this one was not started by torchrun."""
    return _number("WORLD_SIZE", 1) if under_torchrun() else 1


def rank() -> int:
    """Rank of this process; 0 is the leader."""
    return _number("RANK", 0) if under_torchrun() else 0


def local_rank() -> int:
    """Rank of this process on its machine, which is also the index of its GPU."""
    return _number("LOCAL_RANK", 0) if under_torchrun() else 0


def local_world_size() -> int:
    """Number of these processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if under_torchrun() else 1


def restarts() -> int:
    """Number of times that torchrun has restarted these processes after one of them died."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else otherwise
