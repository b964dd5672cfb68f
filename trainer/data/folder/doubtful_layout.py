"""Notes on folders of images whose layout may have been misunderstood. Torch-free."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.data.folder.walk import Notes

_NAMED = 5  # most folders that a note names


def note_doubtful_classes(
    train: Path, places: Mapping[str, Iterable[Path]], split_names: frozenset[str], notes: Notes
) -> None:
    """Note class names that look alike, and class folders that hold splits or other classes.

    `places` has the paths of each class's training images; `split_names` are in small letters.
    """
    _note_look_alikes(places, notes)
    depth = len(train.parts) + 1
    below = {name: {path.parent.parts[depth:] for path in paths} for name, paths in places.items()}
    names = {part for folders in below.values() for parts in folders for part in parts}
    splits = {name for name in names if name.lower() in split_names}
    inner = {name: {parts[0] for parts in folders if parts} for name, folders in below.items()}
    shared = Counter(part for parts in inner.values() for part in parts)
    if splits:
        notes.say(
            f"{_listed(splits)} inside class folders count as parts of their classes ({_listed(places)}), so all their images "
            f"count as {train.name}; if they are splits, put the classes into them: train/<class>, test/<class>"
        )
    elif (
        max(shared.values(), default=0) > 1 and len(shared) > 1 and not any(() in folders for folders in below.values())
    ):
        notes.say(
            f"{_listed(places)} count as the classes, and {_listed(shared)} inside them as parts of a class; if the inner "
            f"folders are the classes, put the images of each into one folder"
        )


def note_unused_classes(train: Path, beside: Iterable[Path], notes: Notes) -> None:
    """Note folders of images beside the only split: these, and that split, may be classes."""
    if names := {folder.name for folder in beside}:
        notes.say(
            f"{train.name}/ counts as the training split and the folders in it as the classes, so {_listed(names)} next to it "
            f"are not used; if {train.name} is also a class, put its images directly into it"
        )


def _listed(names: Iterable[str]) -> str:
    shown = [f"{name}/" for name in sorted(names)]
    return ", ".join(shown[:_NAMED]) + (f" and {len(shown) - _NAMED:,} more" if len(shown) > _NAMED else "")


def _note_look_alikes(classes: Iterable[str], notes: Notes) -> None:
    """Note classes whose names look the same at a glance."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            notes.say(
                f"the classes {' and '.join(map(repr, names))} look alike; rename one if they are meant to be the same"
            )
