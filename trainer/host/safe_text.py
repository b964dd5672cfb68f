"""Makes text from disk safe to display and to use in file names."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

_TERMINAL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})  # of Unicode: a terminal may interpret them


def printable(text: str, *, keep: str = "") -> str:
    """Replace control and formatting characters, except `keep`, by `?`: no name can move the cursor."""
    return "".join("?" if unicodedata.category(c) in _TERMINAL_CATEGORIES and c not in keep else c for c in text)


def plain_name(root: Path) -> str:
    """A name for files and runs, derived from the name of a folder."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.absolute().name).strip("-._")[:60]
    return "images" if not name or is_reserved(name) else name


def is_reserved(name: str) -> bool:
    """Whether commands would take a run's name for something else: another run, no run, or a file."""
    return re.fullmatch(r"latest|imagenet|none|.*\.onnx", name, re.IGNORECASE) is not None


def json_text(value: object, *, ascii_only: bool) -> str:
    """Indented JSON in which lone surrogates and characters that a terminal may interpret are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
