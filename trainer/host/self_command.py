"""The command line that starts this same program again, from any folder."""

from __future__ import annotations

import sys
from pathlib import Path

import trainer

_INSTALLED_IN = str(Path(trainer.__file__).parent.parent)
_MAIN = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
place, module = sys.argv[1:3]
del sys.argv[1:3]
if place not in sys.path:
    sys.path.append(place)
from importlib import import_module
sys.exit(import_module(module).main(sys.argv[1:]))
"""
"""`python -m` without the working directory on the import path, where a user may have a `trainer.py`."""


def own_command(module: str, *arguments: str) -> list[str]:
    """The arguments of a process that calls `main` of `module`: `trainer.cli` or `tui.cli`."""
    return [sys.executable, "-c", _MAIN, _INSTALLED_IN, module, *arguments]
