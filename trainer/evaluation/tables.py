"""CSV tables of an evaluation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from trainer.host.atomic_files import write_atomically
from trainer.run.view.class_score import ClassScore


def write_class_tables(
    folder: Path, classes: Sequence[str], scores: Sequence[ClassScore], confusion_KK: Sequence[Sequence[int]]
) -> None:
    """Write `per_class.csv` and `confusion.csv`; OSError when that fails."""
    write_atomically(folder / "per_class.csv", as_csv(per_class_table(classes, scores)))
    write_atomically(folder / "confusion.csv", as_csv(confusion_table(classes, confusion_KK)))


def per_class_table(classes: Sequence[str], scores: Sequence[ClassScore]) -> list[list[object]]:
    """Rows of `per_class.csv`; fractions are empty where the denominator is 0."""
    head: list[object] = [
        "class", "images", "correct", "accuracy", "low95", "high95", "precision", "f1", "most_confused_with",
    ]  # fmt: skip
    rows = [head]
    for name, score in zip(classes, scores, strict=True):
        low, high = score.interval or (None, None)
        other = "" if score.confused_with is None else classes[score.confused_with]
        shares = [_cell(share) for share in (score.recall, low, high, score.precision, score.f1)]
        rows.append([name, score.images, score.correct, *shares, other])
    return rows


def confusion_table(classes: Sequence[str], confusion_KK: Sequence[Sequence[int]]) -> list[list[object]]:
    """Rows of `confusion.csv`: one row per true class, one column per predicted class."""
    return [["true \\ predicted", *classes], *([name, *row] for name, row in zip(classes, confusion_KK, strict=True))]


class _Lines(list[str]):
    """Minimal file object for `csv.writer`, which writes a row at a time."""

    write = list.append


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Format rows as CSV. Lines end with a newline; the writer's own line end makes it quote carriage returns too."""
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def as_csv(rows: Sequence[Sequence[object]]) -> bytes:
    """Encode rows as the content of a CSV file."""
    return csv_text(rows).encode("utf-8", "backslashreplace")


def _cell(share: float | None) -> str:
    return "" if share is None else f"{share:.6f}"
