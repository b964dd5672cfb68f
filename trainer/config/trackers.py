"""Names of the trackers, and whether they are installed. Imports none of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Literal

from trainer.errors import ConfigError

_LONGEST_NAME = 250  # characters of a metric's name in MLflow

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]  # also names of their packages


def refuse_missing(names: Sequence[TrackerName]) -> None:
    """Raise ConfigError when the package of a tracker is not installed: before a run begins, not in its first minute."""
    missing = [name for name in names if not _installed(name)]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: not installed; install with: pip install 'r18-tui[{','.join(missing)}]'"
        )


def _installed(package: str) -> bool:
    """Whether a package exists; a folder of this name, which trackers leave in the working directory, does not count."""
    here = {""}  # entries of sys.path where trackers' processes do not look
    with contextlib.suppress(FileNotFoundError):  # the working directory was deleted
        here.add(os.getcwd())
    spec = PathFinder.find_spec(package, [path for path in sys.path if path not in here])
    return spec is not None and spec.origin is not None


def metric_name(name: str) -> str:
    """Convert a metric's name, with any class name in it, to one valid for MLflow; different names stay different."""
    parts = [re.sub(r"[^\w\-. ]", "_", part) for part in name.split("/")]
    plain = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{plain[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
