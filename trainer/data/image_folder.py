"""The user's own images: decoded into memory, or decoded when requested.

`trainer.data.folder.layout` finds and sorts the files; one that cannot be decoded is skipped and reported, never replaced.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.data.dataset import DataSet, ResidentSplit, Split, fingerprint_of
from trainer.data.folder.decoder import Decoder, decoded_and_lost
from trainer.data.folder.held_out import hold_out
from trainer.data.folder.layout import ImageFile, Layout, expected_trees, find_layout, found_tree
from trainer.data.folder.survey import Survey, take_survey
from trainer.data.folder.walk import normal_form
from trainer.errors import DataError
from trainer.host.limits import usable_cpus
from trainer.host.progress import Progress

_CHUNK = 256
_RETRY_DELAY_S = 0.5  # before a second attempt to read an image: a network share may answer again


class Reading(NamedTuple):
    """Pixels (uint8) of the readable images, their indices among those requested, and path and reason of the others."""

    pixels_NHWC: Tensor
    kept: list[int]
    lost: list[tuple[str, str]]


@dataclass
class FolderSplit:
    """Images that are decoded when requested; `labels_N` is int64 on the CPU."""

    paths: list[str]
    labels_N: Tensor
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Decode some images on all cores; DataError when a file can no longer be decoded."""
        reading = self.read(rows, threads=usable_cpus())
        for path, reason in reading.lost:
            raise DataError(f"{path}: was readable at the start and no longer is: {reason}")
        return reading.pixels_NHWC

    def read(self, rows: Sequence[int], *, threads: int | None) -> Reading:
        """Decode some images and skip those that are no longer readable: see `read_images`."""
        return read_images(self.decoder, [self.paths[row] for row in rows], threads=threads)

    def subset(self, rows: Tensor) -> FolderSplit:
        """Return some images as a separate split."""
        return FolderSplit([self.paths[row] for row in rows.tolist()], self.labels_N[rows], self.decoder)


def read_images(decoder: Decoder, paths: Sequence[str], *, threads: int | None = 1, shared: bool = False) -> Reading:
    """Decode files, and skip those that cannot be read even at a second attempt a moment later.

    `threads` of None means one per core; `shared` puts the pixels into memory that another process can map.
    """
    side = decoder.image_size
    pixels = torch.empty(len(paths), side, side, 3, dtype=torch.uint8)
    if shared:
        pixels.share_memory_()
    decoded, lost = decoded_and_lost(decoder, paths, threads)
    if lost:
        time.sleep(_RETRY_DELAY_S)
        again = [index for index in range(len(paths)) if index not in decoded]
        found, lost = decoded_and_lost(decoder, [paths[index] for index in again], threads)
        decoded |= {again[index]: picture_HWC for index, picture_HWC in found.items()}
    kept = sorted(decoded)
    for position, index in enumerate(kept):
        pixels[position] = torch.from_numpy(decoded[index])
    return Reading(pixels[: len(kept)], kept, lost)


class PixelStorage(Enum):
    """Treatment of a split's images when a folder is loaded."""

    RESIDENT = "decoded now and kept in memory"
    STREAM = "decoded whenever they are needed; those that cannot be read are found now"
    LAZY = "not opened before they are needed"


def load_image_folder(
    root: Path,
    *,
    decoder: Decoder,
    keep: Callable[[str], PixelStorage],
    progress: Progress,
    train_decoder: Decoder | None = None,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
) -> DataSet:
    """Find and check all images of a folder, and decode those that are to be resident.

    `keep` is called with a split's name. `train_decoder` is for training images kept larger for random crops. `shares`
    of each class's training images, selected by the seed, become `val` and `test` where the folder has no such split.
    DataError when the layout is not supported; the message draws both trees.
    """
    layout = find_layout(root, decoder.reading)
    shares = {name: share for name, share in (shares or {}).items() if share and name not in layout.folders}
    if len(layout.folders) == 1 and not shares:
        raise DataError(
            f"{root}: no images to evaluate on: no test/ or val/, and data.val_fraction and data.test_fraction are 0\n"
            f"{found_tree(root)}\n{expected_trees(root)}"
        )
    looked_at = [name for name in layout.files if keep(name) is not PixelStorage.LAZY or (name == "train" and shares)]
    survey = take_survey(layout, looked_at, progress)
    if decoder.reading > 1 and "train" in looked_at and survey.usable["train"]:
        survey.require_images_per_class(1)
    files = _divided(survey, shares, seed)
    lost: list[tuple[str, str]] = [(str(path), reason) for path, reason in survey.unreadable]
    splits = {}
    for name, of_split in files.items():
        of_files = train_decoder if train_decoder and name == "train" else decoder
        splits[name] = _load_split(of_split, of_files, keep(name), name, progress, lost)
    identity = _identity(layout, shares, seed)
    return DataSet(
        name=root.name or str(root),
        classes=layout.classes,
        splits=splits,
        fingerprint=fingerprint_of(identity),
        identity=identity,
        preprocess=decoder.description,
        left_out=_left_out(layout, lost),
        skipped=tuple(lost),
        remarks=tuple(survey.remarks() if "train" in looked_at else ()),
        notes=tuple(survey.notes),
    )


def _left_out(layout: Layout, lost: Sequence[tuple[str, str]]) -> str:
    """Summary of the unusable files: the order and division of the others depend on them."""
    names = sorted(_name(Path(path), layout) for path, _ in lost)
    count = f"{len(names):,} file{'' if len(names) == 1 else 's'}"
    return f"{count} ({fingerprint_of(dict.fromkeys(names, ''))[:16]})" if names else "no files"


def _name(path: Path, layout: Layout) -> str:
    """Path of a file relative to the folder."""
    return normal_form(str(path.relative_to(layout.root)), layout.reading)


def _identity(layout: Layout, shares: Mapping[str, float], seed: int) -> dict[str, str]:
    identity = {"classes": "\n".join(layout.classes)}
    for name, files in layout.files.items():
        names = fingerprint_of({_name(file.path, layout): str(file.size) for file in files})
        identity[name] = f"{names} ({len(files):,} images, {sum(file.size for file in files):,} bytes)"
    if shares:
        parts = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        identity["held out"] = f"{parts} of each class, by content and seed {seed}"
    return identity


def _divided(survey: Survey, shares: Mapping[str, float], seed: int) -> dict[str, list[ImageFile]]:
    """Files of each split without the unreadable ones, and with some of the training images held out."""
    files = survey.layout.files | {name: [file for file, _ in usable] for name, usable in survey.usable.items()}
    for name, usable in files.items():
        if not usable:
            path, reason = survey.unreadable[-1]
            raise DataError(
                f"{survey.layout.folders[name]}: none of its {len(survey.layout.files[name])} images can be read; for example "
                f"{path}: {reason}"
            )
    if not shares:
        return files
    # A picture is assigned to a split by its content and the seed, so that copies stay together.
    contents = [f"{seed}:{finding.digest}".encode() for _, finding in survey.usable["train"]]
    keys = [hashlib.blake2b(content, digest_size=16).hexdigest() for content in contents]
    rows = hold_out(keys, [file.label for file in files["train"]], shares)
    return files | {name: [files["train"][row] for row in of_split] for name, of_split in rows.items()}


def _load_split(
    files: list[ImageFile],
    decoder: Decoder,
    keep: PixelStorage,
    split: str,
    progress: Progress,
    lost: list[tuple[str, str]],
) -> Split:
    if keep is not PixelStorage.RESIDENT:
        labels = torch.tensor([file.label for file in files], dtype=torch.long)
        return FolderSplit([str(file.path) for file in files], labels, decoder)
    side = decoder.image_size
    kept: list[int] = []
    pixels = np.empty((len(files), side, side, 3), dtype=np.uint8)
    for start in range(0, len(files), _CHUNK):
        chunk = [str(file.path) for file in files[start : start + _CHUNK]]
        decoded, unreadable = decoded_and_lost(decoder, chunk, usable_cpus())
        lost += unreadable
        for index, picture_HWC in decoded.items():
            pixels[len(kept)] = picture_HWC
            kept.append(start + index)
        progress(f"decoding {split} images", min(start + _CHUNK, len(files)) / len(files))
    if not kept:
        raise DataError(
            f"none of the {len(files)} {split} images could be decoded; for example {lost[-1][0]}: {lost[-1][1]}"
        )
    labels = torch.tensor([files[row].label for row in kept], dtype=torch.long)
    return ResidentSplit(torch.from_numpy(pixels[: len(kept)]), labels, [str(files[row].path) for row in kept])
