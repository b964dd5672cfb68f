"""Evaluates classifiers on images with known classes, unchanged and corrupted. Torch-free.

The kinds of corruptions, but not the strengths, are those of Hendrycks and Dietterich, arXiv:1903.12261. They are applied to the
network's input, at its size, so that the strengths mean the same for every image.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from trainer.errors import DataError
from trainer.evaluation.classifier import Classifier
from trainer.evaluation.image_sources import LabelledImages
from trainer.evaluation.scores import ClassifierResult, Scores
from trainer.host.progress import Progress

_ROBUSTNESS_IMAGES = 500  # largest number of images that are corrupted

Corruption = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]  # of one image, with the seed of its noise


def _noise(pixels_HWC: NDArray[np.uint8], seed: int, *, sigma: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0.0, sigma, pixels_HWC.shape)
    noisy: NDArray[np.uint8] = (pixels_HWC + noise).round().clip(0, 255).astype(np.uint8)
    return noisy


def _blur(pixels_HWC: NDArray[np.uint8], seed: int, *, share: float) -> NDArray[np.uint8]:
    radius = share * pixels_HWC.shape[0]
    return np.array(Image.fromarray(pixels_HWC).filter(ImageFilter.GaussianBlur(radius)))


def _jpeg(pixels_HWC: NDArray[np.uint8], seed: int, *, quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


CORRUPTIONS: dict[str, dict[str, Corruption]] = {
    "noise": {f"sigma {sigma:g} of 255": partial(_noise, sigma=sigma) for sigma in (10.0, 20.0, 40.0)},
    "blur": {f"radius {share:.1%} of the side": partial(_blur, share=share) for share in (0.01, 0.02, 0.04)},
    "JPEG": {f"quality {quality}": partial(_jpeg, quality=quality) for quality in (50, 20, 10)},
}
"""Corruptions by kind and strength, the mildest first."""


def corrupt_batch(corruption: Corruption, pixels_NHWC: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
    """Corrupt a batch, reproducibly: the number of the first image seeds its noise."""
    return np.stack([corruption(pixels, first + index) for index, pixels in enumerate(pixels_NHWC)])


def evaluate_classifiers(
    models: list[Classifier], images: LabelledImages, *, batch_size: int, progress: Progress
) -> list[ClassifierResult]:
    """Evaluate models of the same classes on all images that each of them can read; DataError when there are none."""
    probabilities: list[list[NDArray[np.float32]]] = [[] for _ in models]
    rows: list[int] = []
    lost: list[tuple[str, str]] = []
    total = len(images.labels_N)
    for start in range(0, total, batch_size):
        wanted = range(start, min(start + batch_size, total))
        # Models of different versions do not all read the same files.
        found = [images.pixels(wanted, model.decoder) for model in models]
        kept = sorted(set(wanted).intersection(*(read for _, read, _ in found)))
        lost += {path: (path, reason) for _, _, unreadable in found for path, reason in unreadable}.values()
        for model, parts, (pixels_NHWC, read, _) in zip(models, probabilities, found, strict=True):
            if kept:
                parts.append(model.probabilities(pixels_NHWC[np.isin(read, kept)]))
        rows += kept
        progress("evaluating", wanted.stop / total)
    if not rows:
        path, reason = lost[0]
        raise DataError(f"{images.name}: cannot read any of the {total} images. The first, {path}: {reason}")
    labels_N = images.labels_N[rows]
    return [ClassifierResult(Scores(np.concatenate(parts), labels_N), rows, lost) for parts in probabilities]


def evaluate_robustness(
    model: Classifier, images: LabelledImages, result: ClassifierResult, *, batch_size: int, progress: Progress
) -> dict[str, dict[str, float]]:
    """Accuracy on corrupted images (of many, a sample), by kind and strength; `none` is that on the unchanged ones."""
    total = len(result.rows)
    chosen = np.linspace(0, total - 1, min(total, _ROBUSTNESS_IMAGES)).round().astype(int)
    rows = [result.rows[index] for index in chosen]
    right: dict[tuple[str, str], list[bool]] = {(kind, name): [] for kind in CORRUPTIONS for name in CORRUPTIONS[kind]}
    for start in range(0, len(rows), batch_size):
        pixels_NHWC, kept, _ = images.pixels(rows[start : start + batch_size], model.decoder)
        labels_N = images.labels_N[kept]
        for (kind, name), hits in right.items() if kept else ():
            corrupted_NHWC = corrupt_batch(CORRUPTIONS[kind][name], pixels_NHWC, start)
            hits += Scores(model.probabilities(corrupted_NHWC), labels_N).right.tolist()
        progress("evaluating on corrupted images", min(start + batch_size, len(rows)) / len(rows))
    shares: dict[str, dict[str, float]] = {"none": {f"{len(rows):,} images": float(result.scores.right[chosen].mean())}}
    for (kind, name), hits in right.items():
        shares.setdefault(kind, {})[name] = float(np.mean(hits))
    return shares
