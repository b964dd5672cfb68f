"""Text that comes from disk, made safe to show and to name files by."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of characters that a terminal may obey instead of showing."""


def printable(text: str, *, keep: str = "") -> str:
    """Replace control and formatting characters by `?`, so that no name can move the cursor or colour the screen.

    Args:
        text: Anything.
        keep: Characters to leave alone, such as a newline.
    """
    return "".join("?" if unicodedata.category(c) in _OBEYED and c not in keep else c for c in text)


def plain_name(root: Path) -> str:
    """A name for file and run, of what a folder is called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.absolute().name).strip("-._")[:60]
    return "images" if not name or is_reserved(name) else name


def is_reserved(name: str) -> bool:
    """Whether commands would take the name of a run for something else: another run, no run, or a file."""
    return re.fullmatch(r"latest|imagenet|none|.*\.onnx", name, re.IGNORECASE) is not None


def json_text(value: object, *, ascii_only: bool) -> str:
    """JSON, indented, in which escapes take the place of what a terminal may obey and of lone halves of characters.

    Args:
        value: Plain data.
        ascii_only: Whether every character beyond ASCII is escaped.
    """
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
