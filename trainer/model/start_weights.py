"""Describes weights to start from, their stem and image size, without reading their tensors. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.data.folder.suggested_config import Start
from trainer.errors import CheckpointError, RunError
from trainer.model.tensor_header import read_header
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import find_run


def find_start(reference: str | None, runs_dir: Path, *, option: str = "--init-from") -> Start:
    """Describe the start weights: `imagenet`, `none`, a run or a file. CheckpointError when there is no such run or file."""
    if reference in (None, "imagenet"):
        return Start(reference="imagenet", stem="imagenet")
    if reference == "none":
        return Start(reference=None)
    path = Path(reference).expanduser()
    if not path.is_file():
        try:
            run_dir = find_run(str(path), runs_dir)
        except RunError as error:
            raise CheckpointError(f"{option}: {error}\nGive imagenet, none, a file or a run") from None
        config = read_run_config(run_dir)
        return Start(reference=str(run_dir.path), stem=config.model.stem, image_size=config.data.image_size)
    return _start_of_file(path)


def _start_of_file(path: Path) -> Start:
    """Start from a file, which may record stem and image size; for other tensors the first kernel decides."""
    if path.suffix != ".safetensors":
        return Start(reference=str(path))
    try:
        tensors = read_header(path)
        header = tensors.get("__metadata__", {})
        if "json" in header:
            config: dict[str, Any] = json.loads(header["json"])["config"]
            return Start(reference=str(path), stem=config["model"]["stem"], image_size=config["data"]["image_size"])
        if "stem" in header and "preprocess" in header:
            size = int(json.loads(header["preprocess"])["size"])
            return Start(reference=str(path), stem=header["stem"], image_size=size)
        small = "conv1.weight" in tensors and tensors["conv1.weight"]["shape"][-1] == 3
        return Start(reference=str(path), stem="cifar-maxpool" if small else "imagenet")
    except (OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
