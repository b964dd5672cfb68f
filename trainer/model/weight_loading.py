"""Copies weights from another source into a model, and reports which of them fitted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.errors import CheckpointError
from trainer.model.initial_weights import AVERAGE, InitialWeights


@dataclass
class LoadReport:
    """Names of tensors by the result of loading; those of the model that were not copied start from random weights."""

    prefix: str = ""  # common prefix of the names in the source
    ignored_prefixes: list[str] = field(default_factory=list)  # prefixes of other ResNet-18s in the source
    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)  # the stem's weights, whose kernel was padded or cut
    other_classes: list[str] = field(default_factory=list)  # the classifier's, when the source has other classes
    unknown_classes: list[str] = field(default_factory=list)  # the classifier's, when the source names no classes
    reshaped: list[str] = field(default_factory=list)  # weights of another shape
    missing: list[str] = field(default_factory=list)  # names that the source lacks
    unused: list[str] = field(default_factory=list)  # names that the model lacks

    @property
    def random_backbone(self) -> list[str]:
        """Tensors before the classifier that start from random weights.

        Batch-norm counters are ignored: old files lack them, and nothing frozen reads them.
        """
        new = [*self.reshaped, *self.missing]
        return [name for name in new if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded" + (f" from {self.prefix}*" if self.prefix else "")]
        for label, names in (
            ("kernel cut or padded to fit", self.adapted),
            ("new for other classes", self.other_classes),
            ("new, because the file does not name its classes", self.unknown_classes),
            ("new because of their shape", self.reshaped),
            ("new", self.missing),
            ("not used", self.unused),
            ("ignored", [f"{prefix}*" for prefix in self.ignored_prefixes]),
        ):
            if names:
                parts.append(f"{label}: {', '.join(names)}")
        return "; ".join(parts)


def load_initial_weights(model: nn.Module, weights: InitialWeights, classes: Sequence[str]) -> LoadReport:
    """Copy into the model every tensor whose name (after the source's prefix) and shape fit.

    The stem's 7x7 or 3x3 kernel is cut or padded where the other size is needed. The classifier is copied only where
    the source names the same classes in the same order. CheckpointError, with the model unchanged, when a value is not
    finite or the source is not a ResNet-18, which has the stem's kernel and those of all stages and no others.
    """
    own = model.state_dict()
    prefix, *others = _prefixes(weights, own)
    report = LoadReport(prefix=prefix, ignored_prefixes=others)
    there = {name.removeprefix(prefix): value for name, value in weights.state.items() if name.startswith(prefix)}
    _refuse_other_networks(there, own, weights.origin, prefix)
    _refuse_bad_values(there, own, weights.origin, prefix)
    for name, tensor in own.items():
        found = there.get(name)
        if found is None:
            report.missing.append(name)
        elif name.startswith("fc.") and (found.shape != tensor.shape or weights.classes != tuple(classes)):
            unknown = weights.classes is None and found.shape == tensor.shape
            (report.unknown_classes if unknown else report.other_classes).append(name)
        elif found.shape == tensor.shape:
            tensor.copy_(found)
            report.loaded.append(name)
        elif name == "conv1.weight":
            tensor.copy_(_resized_kernel(found, tensor.shape[-1]))
            report.adapted.append(name)
        else:
            report.reshaped.append(name)
    report.unused = sorted(there.keys() - own.keys())
    return report


def _is_kernel(name: str) -> bool:
    """Whether a name is that of a kernel of the stem or of a stage, by which a ResNet-18 is recognised."""
    return re.fullmatch(r"conv1\.weight|layer\d\.\d\.(conv\d|downsample\.0)\.weight", name) is not None


def _prefixes(weights: InitialWeights, own: Mapping[str, Tensor]) -> list[str]:
    """Prefixes behind which most of the model's kernels are found by name and shape; the first one is to be used.

    The first is the first in the file, or one whose name says average (EMA): that is what was evaluated and published.
    CheckpointError when no tensor is named like a kernel.
    """
    kernels = [name for name in own if _is_kernel(name)]
    found: dict[str, list[str]] = {}
    fitting: dict[str, int] = {}
    for name, value in weights.state.items():
        for kernel in kernels:
            if name == kernel or name.endswith(f".{kernel}"):
                prefix = name.removesuffix(kernel)
                found.setdefault(prefix, []).append(kernel)
                fitting[prefix] = fitting.get(prefix, 0) + _fits(kernel, value, own[kernel])
    most = max(((fitting[prefix], len(names)) for prefix, names in found.items() if len(names) > 1), default=None)
    if most is None:
        raise CheckpointError(
            f"model.init_from: {weights.origin} is not a ResNet-18: none of its {len(weights.state)} tensors has the name of "
            f"one of its kernels (first: {', '.join(sorted(weights.state)[:3]) or 'none'})"
        )
    best = [prefix for prefix, names in found.items() if (fitting[prefix], len(names)) == most]
    return sorted(best, key=lambda prefix: AVERAGE.search(prefix) is None)


def _fits(name: str, found: Tensor, wanted: Tensor) -> bool:
    if name != "conv1.weight" or found.ndim != 4:
        return found.shape == wanted.shape
    height, width = found.shape[2:]
    return found.shape[:2] == wanted.shape[:2] and height == width and (height - wanted.shape[-1]) % 2 == 0


def _refuse_other_networks(there: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str, prefix: str) -> None:
    """Raise CheckpointError with the first tensor that does not fit, when the source is another network."""
    wrong = f"model.init_from: {origin} is not a ResNet-18"
    for name, wanted in own.items():
        found, shape = there.get(name), tuple(wanted.shape)
        if found is None:
            if _is_kernel(name):
                raise CheckpointError(f"{wrong}: it has no {prefix}{name} of shape {shape}")
            continue
        dense = found.layout == torch.strided and (found.is_floating_point() or not wanted.is_floating_point())
        if not dense or (_is_kernel(name) and not _fits(name, found, wanted)):
            kind = f"{found.layout} {found.dtype}".replace("torch.", "").removeprefix("strided ")
            raise CheckpointError(f"{wrong}: {prefix}{name} is {kind} of shape {tuple(found.shape)}, expected {shape}")
    for name, value in there.items():
        # Counters of profilers have one dimension.
        if name.startswith("layer") and name not in own and value.ndim > 1:
            raise CheckpointError(f"{wrong}: {prefix}{name}, of shape {tuple(value.shape)}, does not belong to one")


def _refuse_bad_values(there: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str, prefix: str) -> None:
    """Raise CheckpointError with the first tensor whose values cannot be those of a network."""
    for name in filter(there.__contains__, own):
        if problem := _problem_of(name, there[name], own[name].dtype):
            raise CheckpointError(
                f"model.init_from: {origin}: {prefix}{name} {problem}; use an earlier file or another one"
            )


def _problem_of(name: str, found: Tensor, dtype: torch.dtype) -> str:
    if found.is_meta:
        return "has a shape but no values (it was saved on the meta device)"
    try:
        value = found.to(dtype)  # a number beyond the range of its type becomes infinite
    except NotImplementedError:
        return f"is {found.dtype}, which PyTorch cannot convert".replace("torch.", "")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        return "contains NaN or infinity"
    return "contains a negative variance" if name.endswith("running_var") and bool((value < 0).any()) else ""


def _resized_kernel(kernel_OIHW: Tensor, side: int) -> Tensor:
    """The centre of a square kernel, or the kernel padded with zeros."""
    missing = side - kernel_OIHW.shape[-1]
    # A negative padding cuts.
    return functional.pad(kernel_OIHW, [missing // 2] * 4)
