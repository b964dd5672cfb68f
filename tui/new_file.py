"""Names of files that the user asks for, of which none is ever replaced."""

from __future__ import annotations

from pathlib import Path


def unused(path: Path) -> Path:
    """The path, or one with a number after its name where there is such a file."""
    number, found = 2, path
    while found.exists():
        found = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return found
