"""Finds other distributions that also install a top-level `trainer` or `tui`: the last one installed would win."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_LARGEST_RECORD = 200_000  # bytes; larger lists of files (torch's has a megabyte) would delay the first frame
_INSTALLS_OURS = re.compile(rb"^(trainer|tui)(?:/__init__)?\.py,", re.MULTILINE)


def foreign_packages(paths: Iterable[str] | None = None) -> list[str]:
    """One message for each clash on the import path, by default `sys.path`."""
    messages = []
    for folder in sys.path if paths is None else paths:
        for metadata in sorted(Path(folder or ".").glob("*.dist-info")):
            clash = sorted({"trainer", "tui"} & _top_level(metadata))
            name = metadata.name.removesuffix(".dist-info").rpartition("-")[0]
            if clash and name.lower().replace("_", "-") != "r18-tui":
                messages.append(
                    f"the distribution {name!r} in {folder} also installs a top-level package {clash[0]!r}, so r18-tui and "
                    f"it overwrite each other. Give r18-tui an environment of its own (python -m venv .venv)"
                )
    return messages


def _top_level(metadata: Path) -> set[str]:
    """Top-level names of a distribution: all that `top_level.txt` lists, or ours among the files of `RECORD`."""
    with contextlib.suppress(OSError):  # only setuptools writes it
        return set((metadata / "top_level.txt").read_text(encoding="utf-8", errors="replace").split())
    with contextlib.suppress(OSError):
        record = metadata / "RECORD"
        if record.stat().st_size <= _LARGEST_RECORD:
            return {name.decode() for name in _INSTALLS_OURS.findall(record.read_bytes())}
    return set()
