"""Common form of all data sources: class names, splits of uint8 images, and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer.data.draws import Stream, draw
from trainer.data.folder.held_out import hold_out
from trainer.errors import DataError
from trainer.host.progress import Progress


class Split(Protocol):
    """Images of one split, resident or on disk; `labels_N` is int64 on the CPU."""

    labels_N: Tensor

    @property
    def paths(self) -> list[str] | None:
        """Files of the images, by row; None where the images do not come from files."""

    def __len__(self) -> int:
        """Number of images."""

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Return some images: uint8 (len(rows), H, W, 3) on the CPU or the device that holds them."""

    def subset(self, rows: Tensor) -> Split:
        """Return some images as a separate split, in the order of `rows` (int64)."""


@dataclass
class ResidentSplit:
    """All images in one uint8 tensor, and int64 labels on the CPU; `paths` is None if they do not come from files."""

    pixels_NHWC: Tensor
    labels_N: Tensor
    paths: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels_N)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Return some images, as copies."""
        return self.pixels_NHWC[torch.as_tensor(rows, dtype=torch.long, device=self.pixels_NHWC.device)]

    def subset(self, rows: Tensor) -> ResidentSplit:
        """Return some images as a separate split."""
        paths = None if self.paths is None else [self.paths[row] for row in rows.tolist()]
        return ResidentSplit(self.pixels(rows.tolist()), self.labels_N[rows], paths)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A loaded data source."""

    name: str
    classes: tuple[str, ...]  # names, by label; shown literally, never interpreted
    splits: dict[str, Split]  # `train`, and `val` and/or `test`
    fingerprint: str  # SHA-256 over what identifies the data: classes, files or pixels, split
    identity: dict[str, str]  # facts behind the fingerprint, to explain a difference
    preprocess: dict[str, object]  # conversion of a file to the network's input, apart from mean and std
    skipped: tuple[tuple[str, str], ...] = ()  # paths that could not be read, each with the reason
    left_out: str = "no files"  # summary of these; not in the identity, since not every reader looks at all splits
    remarks: tuple[str, ...] = ()  # reasons to doubt the figures of a run, for people
    notes: tuple[str, ...] = ()  # files and folders skipped in a folder of images, for people

    @property
    def selection_split(self) -> str:
        """Split that selects the best checkpoint: `val` if there is one, else `test`."""
        return "val" if "val" in self.splits else "test"

    def check(self, *, batch_size: int, num_classes: int | str) -> None:
        """Raise DataError for data that cannot be trained on.

        These have fewer than two classes or another number than configured, fewer training images than a batch, or no
        evaluation images.
        """
        if len(self.classes) < 2:
            raise DataError(
                f"{self.name}: found {len(self.classes)} class; a classifier needs at least two class folders"
            )
        if num_classes not in ("auto", len(self.classes)):
            raise DataError(
                f"model.num_classes: {num_classes} does not match the {len(self.classes)} classes of the data; use auto"
            )
        if len(self.splits["train"]) < batch_size:
            raise DataError(
                f"{self.name}: {len(self.splits['train'])} training images are fewer than data.batch_size {batch_size}; "
                f"set data.batch_size to {max(2, len(self.splits['train']) // 4)} or less"
            )
        if not len(self.splits[self.selection_split]):
            raise DataError(f"{self.name}: the {self.selection_split} split holds no images")


def with_held_out(splits: dict[str, Split], shares: Mapping[str, float], *, seed: int) -> dict[str, Split]:
    """Hold out stratified shares of the training images, selected by the seed, unless a split of that name exists.

    DataError when a share leaves its split without images.
    """
    wanted = {name: share for name, share in shares.items() if share and name not in splits}
    if not wanted:
        return splits
    train = splits["train"]
    keys = draw(torch.arange(len(train)), seed=seed, epoch=0, stream=Stream.VALIDATION)
    rows = hold_out(keys.tolist(), train.labels_N.tolist(), wanted)
    return splits | {name: train.subset(torch.tensor(of_split)) for name, of_split in rows.items()}


def fingerprint_of(identity: dict[str, str]) -> str:
    """One hash of all facts that identify the data."""
    text = "\n".join(f"{key}={identity[key]}" for key in sorted(identity))
    # Files may have names that are not valid UTF-8.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def hash_tensors(*tensors: Tensor) -> str:
    """SHA-256 of the bytes of CPU tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def channel_statistics(split: Split, progress: Progress) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels of a split, 0 to 1.

    Sums are exact integers, so the result does not depend on the order or the number of chunks.
    """
    total, squares, pixels = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 0
    for start in range(0, len(split), 2048):
        rows = range(start, min(start + 2048, len(split)))
        values = split.pixels(rows).cpu().reshape(-1, 3).to(torch.int32)
        total += values.sum(0, dtype=torch.int64)
        squares += (values * values).sum(0, dtype=torch.int64)
        pixels += len(values)
        progress("measuring mean and std", (start + len(rows)) / len(split))
    mean = total.double() / pixels
    std = (squares.double() / pixels - mean**2).clamp(min=1e-4).sqrt()
    return [round(v, 6) for v in (mean / 255).tolist()], [round(v, 6) for v in (std / 255).tolist()]
