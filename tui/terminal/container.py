"""Finds the process whose end also ends the container."""

from __future__ import annotations

import os
from pathlib import Path

_INITS = frozenset({"catatonit", "docker-init", "dumb-init", "tini"})  # init programs that end with their only child


def main_process(proc: Path = Path("/proc")) -> int:
    """The process whose end also ends the container, or the machine."""
    if read(proc / "1" / "comm").strip() not in _INITS:
        return 1
    children = read(proc / "1" / "task" / "1" / "children").split()
    return int(children[0]) if children else 1


def is_main_process() -> bool:
    """Whether this process is the command of a container."""
    return os.getpid() == 1 or (os.getppid() == 1 and main_process() == os.getpid())


def read(path: Path) -> str:
    """Read a file of the kernel's; empty if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
