"""Selects the training images held out for validation and test, for data sources without such splits. Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from trainer.errors import DataError


def hold_out(keys: Sequence[Any], labels: Sequence[int], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """Divide images among splits, separately for each class: rows, ascending, of `train` and of each share above 0.

    The images of a class are taken in the order of their keys, which are comparable, hashable and in random order among
    images. Those with the same key, copies of a picture, stay together; copies with several labels are not held out at
    all. DataError when a share leaves its split without images.
    """
    chosen: dict[str, list[int]] = {name: [] for name, share in shares.items() if share}
    by_label: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)
    labels_of: dict[Hashable, set[int]] = {}
    for key, label in zip(keys, labels, strict=True):
        labels_of.setdefault(key, set()).add(label)
    for rows in by_label.values():
        groups = [list(copies) for _, copies in itertools.groupby(sorted(rows, key=keys.__getitem__), keys.__getitem__)]
        groups = [copies for copies in groups if len(labels_of[keys[copies[0]]]) == 1]
        left = len(rows)
        for name in chosen:
            # At least one image stays in the training split.
            wanted = min(round(len(rows) * shares[name]), len(rows) - 1)
            for group in list(groups):
                if len(group) <= wanted and len(group) < left:
                    wanted -= len(group)
                    left -= len(group)
                    chosen[name] += group
                    groups.remove(group)
    for name, rows in chosen.items():
        if not rows:
            raise DataError(
                f"data.{name}_fraction {shares[name]} of {len(labels)} images leaves none for {name}; raise it, or add "
                f"more images"
            )
    taken = set(itertools.chain(*chosen.values()))
    left_over = [row for row in range(len(labels)) if row not in taken]
    return {"train": left_over} | {name: sorted(rows) for name, rows in chosen.items()}
