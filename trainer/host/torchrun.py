"""What `torchrun` says about the processes of one training, by the environment. Torch-free.

Source: PyTorch, torchrun (Elastic Launch), section Environment Variables.
"""

from __future__ import annotations

import os

LAUNCHED_BY = "R18_TUI_LAUNCHED_BY"
"""Environment variable by which whoever starts these processes finds their run again: its holder notes the value."""


def under_torchrun() -> bool:
    """Whether torchrun has started this process, which starts it anew when one of them dies."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def world_size() -> int:
    """How many processes train together; 1 where this one was not started by torchrun."""
    return _number("WORLD_SIZE", 1) if under_torchrun() else 1


def rank() -> int:
    """Which of them this is; 0 leads."""
    return _number("RANK", 0) if under_torchrun() else 0


def local_rank() -> int:
    """Which of those on this machine, and so which of its GPUs, this is."""
    return _number("LOCAL_RANK", 0)


def local_world_size() -> int:
    """How many of them share this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def restarts() -> int:
    """How many times torchrun has started these processes anew, since one of them had died."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else otherwise
