"""Examines all pictures of a folder, of every split: their labels, near copies, and odd ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.audit.backbone import Backbone
from trainer.audit.label_doubts import FOLDS, LabelDoubts, find_doubts
from trainer.audit.near_copies import Pair, connected, find_pairs
from trainer.audit.odd_pictures import OddPicture, find_odd
from trainer.audit.picture_facts import measure_files
from trainer.data.folder.layout import Layout
from trainer.errors import DataError
from trainer.host.progress import Progress


@dataclass(frozen=True)
class Pictures:
    """The readable pictures of a folder."""

    root: Path
    classes: tuple[str, ...]
    paths: list[str]
    splits: list[str]  # of each picture
    labels_N: NDArray[np.int64]
    unreadable: list[tuple[str, str]]  # path and reason of the others
    notes: list[str]  # files and folders that were skipped, for people
    flat: bool  # whether the folder has no splits

    def name(self, row: int) -> str:
        """Path of a picture below the folder."""
        return str(Path(self.paths[row]).relative_to(self.root))


@dataclass(frozen=True)
class Audit:
    """Findings about pictures; all row numbers are those of `pictures`."""

    pictures: Pictures
    origin: str  # of the features
    doubts: LabelDoubts
    pairs: list[Pair]
    copies: list[list[int]]  # pictures that show the same
    odd: list[OddPicture]

    @cached_property
    def leaks(self) -> list[list[int]]:
        """Those sets of copies that lie in several splits."""
        return [group for group in self.copies if len({self.pictures.splits[row] for row in group}) > 1]

    @cached_property
    def contradictions(self) -> list[list[int]]:
        """Those sets of copies that have several labels."""
        return [group for group in self.copies if len({self.pictures.labels_N[row] for row in group}) > 1]


def examine(layout: Layout, backbone: Backbone, progress: Progress) -> Audit:
    """Examine the pictures of a folder; DataError when a class has too few that can be read."""
    _require_enough(layout, [file.label for of_split in layout.files.values() for file in of_split], "pictures")
    files = [(split, file) for split, of_split in layout.files.items() for file in of_split]
    facts, measured, unreadable = measure_files([str(file.path) for _, file in files], progress)
    features_MF, decoded = backbone.features([str(files[index][1].path) for index in measured], progress)
    # A file may vanish between the two passes.
    lost = sorted({*range(len(measured))} - {*decoded})
    unreadable += [(str(files[measured[index]][1].path), "can no longer be read") for index in lost]
    kept = [files[measured[index]] for index in decoded]
    pictures = Pictures(
        root=layout.root, classes=layout.classes, paths=[str(file.path) for _, file in kept],
        splits=[split for split, _ in kept], labels_N=np.array([file.label for _, file in kept], np.int64),
        unreadable=unreadable, notes=layout.notes, flat=layout.flat,
    )  # fmt: skip
    _require_enough(layout, pictures.labels_N.tolist(), "readable pictures")
    facts = facts.of(np.array(decoded, np.int64))
    pairs = find_pairs(facts, progress)
    copies = connected(pairs)
    doubts = find_doubts(features_MF, pictures.labels_N, copies, progress)
    return Audit(
        pictures=pictures, origin=backbone.origin, doubts=doubts, pairs=pairs, copies=copies,
        odd=find_odd(facts, pictures.labels_N),
    )  # fmt: skip


def _require_enough(layout: Layout, labels: list[int], what: str) -> None:
    counts = Counter(labels)
    for label, name in enumerate(layout.classes):
        if counts[label] < FOLDS:
            raise DataError(
                f"{layout.root}: {name} has {counts[label]} {what}; an audit needs {FOLDS} or more of each class. Add pictures, "
                f"or move the class out of the folder for the audit"
            )
