"""Finds other distributions that also install a top-level `trainer` or `tui`: the last one installed would win."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

OURS = ("trainer", "tui")


def foreign_packages(paths: Iterable[str] | None = None) -> list[str]:
    """One message for each clash.

    Args:
        paths: Import path; None takes `sys.path`.

    Reads only `top_level.txt`, which is small: a search through every RECORD would cost more than the first frame.
    """
    messages = []
    for folder in sys.path if paths is None else paths:
        for listing in sorted(Path(folder or ".").glob("*.dist-info/top_level.txt")):
            clash = sorted(set(OURS) & set(listing.read_text(encoding="utf-8", errors="replace").split()))
            name = listing.parent.name.removesuffix(".dist-info").rpartition("-")[0]
            if clash and name.lower().replace("_", "-") != "r18-tui":
                messages.append(
                    f"the distribution {name!r} in {folder} also installs a top-level package {clash[0]!r}, so r18-tui and "
                    f"it overwrite each other. Give r18-tui an environment of its own (python -m venv .venv)"
                )
    return messages
