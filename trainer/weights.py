"""Weights to start from: ImageNet's, another run's, or a file; and an account of what fitted.

Foreign pickles are read with `weights_only=True` and, below torch 2.10, not at all: the restricted unpickler of older
releases can be made to execute code (CVE-2025-32434, CVE-2026-24747). torchvision's own file is exempt once its full
hash has matched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from trainer.checkpoint import CheckpointFolder, read_checkpoint, read_tensors
from trainer.data.download import download
from trainer.errors import CheckpointError, ForeignCheckpointError
from trainer.progress import Progress
from trainer.run.store import RunDir
from trainer.versions import torch_release

IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
IMAGENET_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
"""Of ResNet18_Weights.IMAGENET1K_V1; its first eight digits stand in the file's name."""

_PREFIXES = ("module.", "_orig_mod.", "model.")
_SAFE_UNPICKLER = (2, 10)


@dataclass(frozen=True)
class InitialWeights:
    """Weights from somewhere else.

    Attributes:
        state: Tensors by torchvision's names.
        origin: Where they are from, for messages.
        statistics: Mean and std that they were trained with, when the source says so.
        classes: That its classifier tells apart, in order, when the source says so.
    """

    state: dict[str, Tensor]
    origin: str
    statistics: tuple[list[float], list[float]] | None = None
    classes: tuple[str, ...] | None = None


@dataclass
class LoadReport:
    """What became of the tensors.

    Attributes:
        loaded: Names that were taken over.
        adapted: Names of the stem's weights, whose kernel was made larger or smaller.
        reshaped: Names whose shape differs; they start from random weights.
        other_classes: Names of the classifier's weights, which tell other classes apart; they start from random weights.
        missing: Names that the source does not have.
        unused: Names that the model does not have.
    """

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    other_classes: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def random_backbone(self) -> list[str]:
        """Tensors before the classifier that start from random weights.

        Counters of batch norms do not count: files from before torch had them lack them, and nothing frozen reads them.
        """
        new = [*self.reshaped, *self.missing]
        return [name for name in new if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors taken over"]
        for label, names in (
            ("kernel cut or padded to fit", self.adapted),
            ("new for other classes", self.other_classes),
            ("new for their shape", self.reshaped),
            ("new", self.missing),
            ("not used", self.unused),
        ):
            if names:
                parts.append(f"{label}: {', '.join(names)}")
        return "; ".join(parts)


def find_initial_weights(reference: str, runs_dir: Path, progress: Progress) -> InitialWeights:
    """Read what `model.init_from` names.

    Args:
        reference: `imagenet`, a file, or a run (a directory or a name under `runs_dir`).
        runs_dir: Folder of runs.
        progress: Told about a download.

    Raises:
        CheckpointError: When it cannot be had, read or trusted.
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
        pass  # plain tensors, then
    try:
        return InitialWeights(_plain(read_tensors(path)[0], path), str(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error


def load_initial_weights(model: nn.Module, weights: InitialWeights, classes: Sequence[str]) -> LoadReport:
    """Copy every tensor whose name and shape fit.

    The stem's 7x7 or 3x3 kernel is cut or padded where the other is needed; a classifier of other classes is left out.

    Args:
        model: Changed in place.
        weights: From elsewhere.
        classes: That the model is to tell apart, in order.

    Raises:
        CheckpointError: When nothing of the backbone fits.
    """
    report, own = LoadReport(), model.state_dict()
    other_classes = weights.classes is not None and weights.classes != tuple(classes)
    for name, tensor in own.items():
        found = weights.state.get(name)
        if found is None:
            report.missing.append(name)
        elif name.startswith("fc.") and (other_classes or found.shape != tensor.shape):
            report.other_classes.append(name)
        elif found.shape == tensor.shape:
            tensor.copy_(found)
            report.loaded.append(name)
        elif name == "conv1.weight" and found.shape[:2] == tensor.shape[:2]:
            tensor.copy_(_resized_kernel(found, tensor.shape[-1]))
            report.adapted.append(name)
        else:
            report.reshaped.append(name)
    report.unused = sorted(set(weights.state) - set(own))
    if not any(name.startswith("layer") for name in report.loaded):
        raise CheckpointError(
            f"model.init_from: {weights.origin} holds no ResNet-18: none of its {len(weights.state)} tensors fits "
            f"a layer (first: {', '.join(sorted(weights.state)[:3]) or 'none'})"
        )
    return report


def _resized_kernel(kernel_OIHW: Tensor, side: int) -> Tensor:
    """The middle of a square kernel, or the kernel amid zeros."""
    missing = side - kernel_OIHW.shape[-1]
    # A negative padding cuts.
    return functional.pad(kernel_OIHW, [missing // 2] * 4)


def _own(path: Path) -> InitialWeights:
    checkpoint = read_checkpoint(path)
    meta = checkpoint.meta
    return InitialWeights(
        checkpoint.measured_weights,
        str(path),
        (meta["mean"], meta["std"]),
        tuple(str(name) for name in meta["classes"]),
    )


def imagenet_path() -> Path:
    """Where torchvision keeps ImageNet's weights, and this program too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(IMAGENET_URL).name


def _imagenet(progress: Progress) -> dict[str, Tensor]:
    path = imagenet_path()
    folder = path.parent
    if not path.is_file():
        # Its own name: other programs and other runs share this folder.
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
            f"{path}: SHA-256 is {found}, expected {IMAGENET_SHA256}; remove the file and start again"
        )
    return _plain(torch.load(path, map_location="cpu", weights_only=True), path)


def _foreign_pickle(path: Path) -> dict[str, Tensor]:
    if torch_release() < _SAFE_UNPICKLER:
        raise CheckpointError(
            f"{path}: torch {torch.__version__} cannot read foreign pickles safely (CVE-2026-24747); use torch 2.10 or "
            "newer, or convert the file to safetensors on a machine that you trust it on"
        )
    try:
        return _plain(torch.load(path, map_location="cpu", weights_only=True), path)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}). Save it with "
            "torch.save(model.state_dict(), PATH); whole pickled models are refused because they can run code"
        ) from error


def _plain(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a state dict of tensors, found {type(loaded).__name__}")
    state = {}
    for name, value in loaded.items():
        if isinstance(value, Tensor):
            for prefix in _PREFIXES:
                name = str(name).removeprefix(prefix)
            state[name] = value
    return state
