"""Remembers which numerics were the fastest for a configuration on this machine, so that later runs need not time them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import orjson
import torch
from pydantic import TypeAdapter

from trainer.config.schema import Config
from trainer.host.atomic_files import write_atomically
from trainer.host.gpu import driver_version
from trainer.host.limits import usable_cpus
from trainer.model.device import describe_device
from trainer.model.numerics import Numerics
from trainer.model.versions import software_versions

_NUMERICS = TypeAdapter(Numerics)


class RememberedNumerics:
    """The choices of one machine, in one file of the user's cache folder. A file that cannot be used is as good as none."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self._key = _key(config, device)

    def find(self) -> tuple[Numerics, dict[str, float]] | None:
        """The choice for this configuration and device, and the milliseconds per step of each candidate; None if unknown."""
        found = _read().get(self._key)
        try:
            return None if found is None else (_NUMERICS.validate_python(found["numerics"]), dict(found["timings_ms"]))
        except (KeyError, TypeError, ValueError):
            return None

    def store(self, numerics: Numerics, timings_ms: dict[str, float]) -> None:
        """Remember a choice. Where the folder cannot be written, the next run times again."""
        choice = {"numerics": dataclasses.asdict(numerics), "timings_ms": timings_ms}
        try:
            path().parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path(), orjson.dumps(_read() | {self._key: choice}, option=orjson.OPT_INDENT_2))
        except OSError:
            return


def path() -> Path:
    """The file. Source: XDG Base Directory Specification."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(folder) if Path(folder).is_absolute() else Path("~/.cache").expanduser()) / "r18-tui" / "numerics.json"


def forget() -> bool:
    """Forget all choices; whether there were any. OSError where the file cannot be removed."""
    existed = path().exists()
    path().unlink(missing_ok=True)
    return existed


def _key(config: Config, device: torch.device) -> str:
    """Hash of everything that the speed of a step depends on."""
    run, data = config.run, config.data
    facts = {
        "device": describe_device(device), "driver": driver_version(), "cpus": usable_cpus(),
        "versions": software_versions(), "model": config.model.model_dump(mode="json"),
        "auto": [run.precision, run.channels_last, run.convolution, run.batch_norm],
        "run": [run.compile, run.cuda_graph, run.deterministic],
        "batch": [data.batch_size, data.image_size, config.train.grad_accum_steps], "optimizer": config.optim.name,
    }  # fmt: skip
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _read() -> dict[str, Any]:
    try:
        choices = orjson.loads(path().read_bytes())
    except (OSError, ValueError):
        return {}
    return choices if isinstance(choices, dict) else {}
