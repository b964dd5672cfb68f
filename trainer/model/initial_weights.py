"""Reads weights to start from: ImageNet's, another run's, or a file. `trainer.model.weight_loading` puts them into a model.

Foreign pickles are read with `weights_only=True` and, below torch 2.10, not at all: the restricted unpickler of older
releases can be made to execute code (CVE-2025-32434, CVE-2026-24747). torchvision's own file is exempt: its hash is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from trainer.config.data_config import DataConfig
from trainer.errors import CheckpointError, ForeignCheckpointError
from trainer.host.download import download
from trainer.host.progress import Progress
from trainer.model.checkpoint import read_checkpoint, read_tensors
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.metadata import class_names, normalization
from trainer.model.model_files import kind_of_file
from trainer.model.versions import torch_release
from trainer.run.folder.run_dir import RunDir

IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
IMAGENET_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"  # ResNet18_Weights.IMAGENET1K_V1

_SAFE_UNPICKLER = (2, 10)

AVERAGE = re.compile(r"(^|[._])ema([._]|$)", re.IGNORECASE)  # names of averages of the weights


@dataclass(frozen=True)
class InitialWeights:
    """Weights from another source."""

    state: dict[str, Tensor]  # tensors by torchvision's names, behind a prefix that all of a network have in common
    origin: str  # source of the weights, for messages
    statistics: tuple[list[float], list[float]] | None = None  # mean and std in their training; None where unknown
    classes: tuple[str, ...] | None = None  # names of the classifier's classes, in order; None where unknown


def find_initial_weights(reference: str, runs_dir: Path, progress: Progress) -> InitialWeights:
    """Read the weights that `model.init_from` names: `imagenet`, a file, or a run (a path or a name in `runs_dir`).

    CheckpointError when they cannot be downloaded, read or trusted.
    """
    if reference == "imagenet":
        return InitialWeights(_imagenet(progress), "torchvision IMAGENET1K_V1")
    path = Path(reference).expanduser()
    for run in (path, runs_dir / reference):
        if (run / "checkpoints").is_dir():
            return _own(CheckpointFolder(RunDir(run), keep=2).choose("default"))
    if not path.is_file():
        raise CheckpointError(f"model.init_from: {reference}: no such file or run; give imagenet, a file or a run")
    if path.suffix != ".safetensors":
        return InitialWeights(_foreign_pickle(path), str(path))
    try:
        return _own(path)
    except ForeignCheckpointError:
        pass  # not a checkpoint of this program: plain tensors
    try:
        tensors, header = read_tensors(path)
        state = _flat(tensors, path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    return InitialWeights(state, str(path), *_described(header))


def _own(path: Path) -> InitialWeights:
    checkpoint = read_checkpoint(path)
    run = checkpoint.run
    return InitialWeights(checkpoint.evaluated_weights, str(path), (run.mean, run.std), tuple(run.classes))


def imagenet_path() -> Path:
    """Path at which torchvision, and this program too, keeps ImageNet's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(IMAGENET_URL).name


def _imagenet(progress: Progress) -> dict[str, Tensor]:
    path = imagenet_path()
    folder = path.parent
    if not path.is_file():
        # A name of its own: other programs and other runs share this folder.
        partial = path.with_suffix(f".{os.getpid()}.part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            download(IMAGENET_URL, partial, progress)
            partial.replace(path)
        except OSError as error:
            raise CheckpointError(
                f"model.init_from: imagenet: {path.name} cannot be downloaded: {error}. "
                f"Fetch {IMAGENET_URL} (SHA-256 {IMAGENET_SHA256}) elsewhere and put it at {path}"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != IMAGENET_SHA256:
        raise CheckpointError(
            f"{path}: SHA-256 is {found}, expected {IMAGENET_SHA256}; delete the file and start again"
        )
    return _flat(torch.load(path, map_location="cpu", weights_only=True), path)


def _foreign_pickle(path: Path) -> dict[str, Tensor]:
    if torch_release() < _SAFE_UNPICKLER:
        raise CheckpointError(
            f"{path}: torch {torch.__version__} cannot read foreign pickles safely (CVE-2026-24747); use torch 2.10 or "
            "newer, or convert the file to safetensors on a machine where running its code is safe"
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if kind := kind_of_file(path):
            raise CheckpointError(
                f"{path}: holds no readable weights{kind}. Give a run, a state dict or an exported model.safetensors"
            ) from error
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}). Save it with "
            "torch.save(model.state_dict(), PATH); whole pickled models are refused because they can run code"
        ) from error
    return _flat(loaded, path)


def _flat(loaded: Any, path: Path) -> dict[str, Tensor]:
    """All tensors of nested dicts, by dotted names; CheckpointError for no dict, or two tensors with the same name.

    Parts of a name that begin with an underscore are dropped: PyTorch names its wrappers so (`_orig_mod` and others).
    They are kept where they say that the weights are an average, and where two names would become equal without them.
    """
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: expected a state dict of tensors, found {type(loaded).__name__}")
    found: dict[tuple[str, ...], Tensor] = {}
    pending: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), loaded)]
    seen = {id(loaded)}  # a dict may contain itself
    while pending:
        outer, mapping = pending.pop(0)
        for key, value in mapping.items():
            names = (*outer, *str(key).split("."))
            if isinstance(value, Tensor) and not value.is_nested:  # nested tensors have no shape
                if found.setdefault(names, value) is not value:
                    raise CheckpointError(f"{path}: holds two tensors named {'.'.join(names)}")
            elif isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                pending.append((names, value))
    first: dict[str, tuple[str, ...]] = {}
    needed: set[tuple[str, ...]] = set()
    for names in found:
        other = first.setdefault(_unwrapped(names, needed=()), names)
        if found[other] is not found[names]:
            needed.update(full[: end + 1] for full in (names, other) for end in range(len(full)))
    return {_unwrapped(names, needed): value for names, value in found.items()}


def _unwrapped(names: tuple[str, ...], needed: Collection[tuple[str, ...]]) -> str:
    """A tensor's name without the parts of wrappers, except those needed to distinguish it from others."""
    kept = [
        part
        for end, part in enumerate(names)
        if not part.startswith("_") or AVERAGE.search(part) or names[: end + 1] in needed
    ]
    return ".".join(kept)


def _described(header: Mapping[str, str]) -> tuple[tuple[list[float], list[float]] | None, tuple[str, ...] | None]:
    """Mean and std, and the classes, from the header of an export of this program; None for what is missing."""
    statistics = None
    try:
        classes = class_names(header["classes"]) if "classes" in header else None
        if "preprocess" in header:
            preprocess = json.loads(header["preprocess"])
            statistics = preprocess["mean"], preprocess["std"]
            DataConfig(mean=statistics[0], std=statistics[1])  # three finite numbers each
            normalization(preprocess)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, None  # from another program
    return statistics, classes
