"""Which trackers there are, and whether they are installed. Imports none of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Literal

from trainer.errors import ConfigError

if TYPE_CHECKING:
    pass

_LONGEST_NAME = 250
"""Characters of a metric's name that MLflow takes."""

SinkName = Literal["tensorboard", "wandb", "mlflow", "trackio"]

_PACKAGES: dict[SinkName, str] = {
    "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio",
}  # fmt: skip


def refuse_missing(names: Sequence[SinkName]) -> None:
    """Raises ConfigError when the package of a tracker is not installed: before a run begins, and not in its first minute."""
    missing = [name for name in names if not _installed(_PACKAGES[name])]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: not installed; install with: pip install 'r18-tui[{','.join(missing)}]'"
        )


def _installed(package: str) -> bool:
    """Whether there is such a package; a folder of this name, as trackers leave in the working directory, is none."""
    here = {""}  # where no process of a tracker looks
    with contextlib.suppress(FileNotFoundError):  # the working directory was deleted
        here.add(os.getcwd())
    spec = PathFinder.find_spec(package, [path for path in sys.path if path not in here])
    return spec is not None and spec.origin is not None


def metric_name(name: str) -> str:
    """A name as MLflow takes it: classes may be called anything. Names that differ stay different, in every session.

    Args:
        name: As `train/loss`, or `test_class/` and a class.
    """
    parts = [re.sub(r"[^\w\-. ]", "_", part) for part in name.split("/")]
    plain = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{plain[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
