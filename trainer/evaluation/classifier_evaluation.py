"""Evaluates classifiers on images with known classes, unchanged and corrupted."""

from __future__ import annotations

import numpy as np

from trainer.errors import DataError
from trainer.evaluation.classifier import Classifier
from trainer.evaluation.corruptions import CORRUPTIONS, damaged_batch
from trainer.evaluation.image_sources import MeasuredImages
from trainer.evaluation.scores import Measured, Scores
from trainer.host.progress import Progress


def measure(models: list[Classifier], images: MeasuredImages, *, batch_size: int, progress: Progress) -> list[Measured]:
    """Evaluate models of the same classes on all images that each of them can read; DataError when there are none."""
    answers: list[list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = [[] for _ in models]
    rows: list[int] = []
    lost: list[tuple[str, str]] = []
    total = len(images.labels_N)
    for start in range(0, total, batch_size):
        wanted = range(start, min(start + batch_size, total))
        # Models of different versions do not all read the same files.
        found = [images.pixels(wanted, model.decoder) for model in models]
        kept = sorted(set(wanted).intersection(*(read for _, read, _ in found)))
        lost += {path: (path, reason) for _, _, unreadable in found for path, reason in unreadable}.values()
        for model, parts, (pixels_NHWC, read, _) in zip(models, answers, found, strict=True):
            if kept:
                parts.append(model.probabilities(pixels_NHWC[np.isin(read, kept)]))
        rows += kept
        progress("evaluating", wanted.stop / total)
    if not rows:
        raise DataError(f"{images.name}: none of its {total} images can be read; such as {lost[0][0]}: {lost[0][1]}")
    labels_N = images.labels_N[rows]
    return [Measured(Scores(np.concatenate(parts), labels_N), rows, lost) for parts in answers]


def measure_robustness(
    model: Classifier, images: MeasuredImages, measured: Measured, *, batch_size: int, progress: Progress
) -> dict[str, dict[str, float]]:
    """Accuracy on corrupted images (of many, a sample), by kind and strength; `none` is that on the unchanged ones."""
    total = len(measured.rows)
    chosen = np.linspace(0, total - 1, min(total, _ROBUSTNESS_IMAGES)).round().astype(int)
    rows = [measured.rows[index] for index in chosen]
    right: dict[tuple[str, str], list[bool]] = {(kind, name): [] for kind in CORRUPTIONS for name in CORRUPTIONS[kind]}
    for start in range(0, len(rows), batch_size):
        pixels_NHWC, kept, _ = images.pixels(rows[start : start + batch_size], model.decoder)
        labels_N = images.labels_N[kept]
        for (kind, name), hits in right.items() if kept else ():
            worse_NHWC = damaged_batch(CORRUPTIONS[kind][name], pixels_NHWC, start)
            hits += Scores(model.probabilities(worse_NHWC), labels_N).right.tolist()
        progress("evaluating on worse pictures", min(start + batch_size, len(rows)) / len(rows))
    shares: dict[str, dict[str, float]] = {
        "none": {f"{len(rows):,} images": float(measured.scores.right[chosen].mean())}
    }
    for (kind, name), hits in right.items():
        shares.setdefault(kind, {})[name] = float(np.mean(hits))
    return shares


_ROBUSTNESS_IMAGES = 500
