"""Finds the images that a run held out, with the run's own rules."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.config.schema import Config
from trainer.data.dataset import DataSet, ResidentSplit
from trainer.data.image_folder import FolderSplit
from trainer.data.prepare import load_held_out, undecoded
from trainer.errors import DataError, R18Error
from trainer.evaluation.image_sources import ArrayImages, FileImages, LabelledImages
from trainer.evaluation.run_settings import settings_now
from trainer.host.progress import progress_bar
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import read_records
from trainer.run.log.run_events import Started


def held_out_images(run_dir: RunDir, split: str | None, classes: Sequence[str]) -> LabelledImages:
    """Find the images of a split of a run's data; None means `test`, or `val` where there is no test.

    DataError when the images no longer exist, have other classes, or there is no such split.
    """
    config = settings_now(run_dir)
    root = Path(config.data.root).expanduser()
    if config.data.kind == "imagefolder" and not root.is_dir():
        raise DataError(f"{root}: the run's images no longer exist there; give them with --data DIR")
    data = _load(config)
    if data.classes != tuple(classes):
        raise DataError(
            f"{root}: its classes are {', '.join(data.classes)}, but the model's are {', '.join(classes)}; restore the folder, "
            f"or give images with --data DIR"
        )
    remarks = []
    if data.fingerprint != _fingerprint_of_run(run_dir):
        divided = "; the held-out ones depend on all of them, so some may have been trained on"
        remarks.append(
            "the images have changed since the run was trained"
            + (divided if any(config.data.held_out_shares.values()) else "")
        )
    name = split or ("test" if "test" in data.splits else data.selection_split)
    if name not in data.splits:
        raise DataError(f"{run_dir.path}: the run has no {name} images; it has {', '.join(data.splits)}")
    found = data.splits[name]
    labels_N = found.labels_N.numpy().astype(np.int64)
    if isinstance(found, FolderSplit):
        return FileImages(name, found.paths, labels_N, remarks)
    assert isinstance(found, ResidentSplit)
    return ArrayImages(name, found.pixels_NHWC.numpy(), labels_N, remarks)


def num_trained_on(run_dir: RunDir, paths: Sequence[str]) -> int:
    """Count the files that a run was trained on, copies included; 0 if its data are not files or no longer exist."""
    try:
        config = settings_now(run_dir)
        if config.data.kind != "imagefolder":
            return 0
        train = _load(config).splits["train"]
    except R18Error:
        return 0
    assert isinstance(train, FolderSplit)
    sizes = {_size(path) for path in paths} - {None}
    trained = {_digest(path) for path in train.paths if _size(path) in sizes} - {None}
    return sum(_digest(path) in trained for path in paths) if trained else 0


def _load(config: Config) -> DataSet:
    """The data of a run, with files left undecoded: each model has its own decoder."""
    with progress_bar() as progress:
        return load_held_out(undecoded(config), progress)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None  # it is gone; reading it will report that


def _digest(path: str) -> bytes | None:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except OSError:
        return None


def _fingerprint_of_run(run_dir: RunDir) -> str:
    started = [record.event for record in read_records(run_dir.events) if isinstance(record.event, Started)]
    return started[-1].fingerprint if started else ""
