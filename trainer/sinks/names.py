"""Which trackers there are, and whether they are installed. Imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from trainer.errors import ConfigError

if TYPE_CHECKING:
    from trainer.sinks.sink import Origin, Sink

SinkName = Literal["tensorboard", "wandb", "mlflow", "trackio"]

_PACKAGES: dict[SinkName, str] = {
    "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio",
}  # fmt: skip


def refuse_missing(names: Sequence[SinkName]) -> None:
    """Raises ConfigError when the package of a tracker is not installed: before a run begins, and not in its first minute."""
    missing = [name for name in names if find_spec(_PACKAGES[name]) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: not installed; install with: pip install 'r18-tui[{','.join(missing)}]'"
        )


def opener(name: SinkName) -> Callable[[Origin], Sink]:
    """What opens a tracker for a session. Imports its package."""
    open_sink: Callable[[Origin], Sink] = importlib.import_module(f"trainer.sinks.{name}_sink").open_sink
    return open_sink
