"""Text that comes from disk, made safe to show and to name files by."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of characters that a terminal may obey instead of showing."""


def literal(text: str, *, keep: str = "") -> str:
    """Replace control and formatting characters by `?`, so that no name can move the cursor or colour the screen.

    Args:
        text: Anything.
        keep: Characters to leave alone, such as a newline.
    """
    return "".join("?" if unicodedata.category(c) in _OBEYED and c not in keep else c for c in text)


def plain_name(root: Path) -> str:
    """A name for file and run, of what a folder is called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.absolute().name).strip("-._")
    return name[:60] or "images"
