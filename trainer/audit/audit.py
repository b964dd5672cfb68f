"""Examines all pictures of a folder, of every split: their labels, near copies, and odd ones."""

from __future__ import annotations

from dataclasses import dataclass
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

    @property
    def leaks(self) -> list[list[int]]:
        """Those sets of copies that lie in several splits."""
        return [group for group in self.copies if len({self.pictures.splits[row] for row in group}) > 1]

    @property
    def contradictions(self) -> list[list[int]]:
        """Those sets of copies that have several labels."""
        return [group for group in self.copies if len({self.pictures.labels_N[row] for row in group}) > 1]


def examine(layout: Layout, backbone: Backbone, progress: Progress) -> Audit:
    """Examine the pictures of a folder; DataError when too few can be read."""
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
        unreadable=unreadable,
    )  # fmt: skip
    _require_enough(pictures)
    facts = facts.of(np.array(decoded, np.int64))
    pairs = find_pairs(facts, progress)
    copies = connected(pairs)
    doubts = find_doubts(features_MF, pictures.labels_N, copies, progress)
    return Audit(
        pictures=pictures, origin=backbone.origin, doubts=doubts, pairs=pairs, copies=copies,
        odd=find_odd(facts, pictures.labels_N),
    )  # fmt: skip


def _require_enough(pictures: Pictures) -> None:
    counts = np.bincount(pictures.labels_N, minlength=len(pictures.classes))
    for name, count in zip(pictures.classes, counts.tolist(), strict=True):
        if count < FOLDS:
            raise DataError(
                f"{pictures.root}: {name} has {count} readable pictures; an audit needs {FOLDS} or more of each class"
            )
