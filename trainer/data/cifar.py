"""CIFAR-10 and CIFAR-100 through torchvision, with progress and an explanation when the download fails.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from trainer.data.dataset import DataSet, ResidentSplit, Split, fingerprint_of, hash_tensors
from trainer.errors import DataError
from trainer.host.download import download
from trainer.host.progress import Progress


def load_cifar(kind: str, root: Path, image_size: int, progress: Progress) -> DataSet:
    """Load `cifar10` or `cifar100` from `root`, downloaded first if missing, resized once to `image_size` pixels.

    DataError when the archive is missing and cannot be downloaded, or is damaged.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    source = CIFAR10 if kind == "cifar10" else CIFAR100
    _ensure_archive(source, root, progress)
    progress("extracting", None)
    try:
        parts = {split: source(str(root), train=split == "train", download=True) for split in ("train", "test")}
    except (RuntimeError, OSError, EOFError) as error:
        raise DataError(
            f"{root / source.base_folder}: the extracted files are damaged: {error}; delete them and start again"
        ) from error
    identity = {"kind": kind}
    splits: dict[str, Split] = {}
    for name, part in parts.items():
        pixels, labels = torch.from_numpy(part.data), torch.tensor(part.targets)
        identity[name] = hash_tensors(pixels, labels)
        splits[name] = ResidentSplit(_resize(pixels, image_size), labels)
    return DataSet(
        name=kind,
        classes=tuple(parts["train"].classes),
        splits=splits,
        fingerprint=fingerprint_of(identity),
        identity=identity,
        preprocess={"resize": image_size, "crop_pct": 1.0, "interpolation": "bilinear", "antialias": True},
    )


def _resize(pixels_NHWC: torch.Tensor, size: int) -> torch.Tensor:
    if pixels_NHWC.shape[1] == size:
        return pixels_NHWC
    out = []
    for chunk in pixels_NHWC.split(4096):
        large = functional.interpolate(chunk.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
        out.append(large.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    return torch.cat(out)


def _ensure_archive(source: Any, root: Path, progress: Progress) -> None:
    """Download torchvision's archive if needed, with progress and cancellation."""
    from torchvision.datasets.utils import check_integrity

    archive = root / source.filename
    if (root / source.base_folder).is_dir() or check_integrity(str(archive), source.tgz_md5):
        return
    partial = archive.with_suffix(".part")
    try:
        root.mkdir(parents=True, exist_ok=True)
        download(source.url, partial, progress)
        if not check_integrity(str(partial), source.tgz_md5):
            raise OSError("the downloaded file has the wrong checksum")
        partial.replace(archive)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(
            f"{source.filename} cannot be downloaded: {error}. Put the archive ({source.url}, MD5 {source.tgz_md5}) "
            f"at {archive}, or train on the embedded digits, which need no network: r18-tui digits"
        ) from error
