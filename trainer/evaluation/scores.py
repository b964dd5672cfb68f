"""Scores of predictions: pure numpy, without model or files. Shapes: N images, K classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.run.view.class_score import Z95, ClassScore, scores_from_counts, wilson_interval

TOP5_FROM = 10  # smallest number of classes for which top-5 accuracy is meaningful
NO_PREDICTION = -1  # class of a prediction that is not finite
_BINS = 15  # calibration bins. Source: Guo et al., arXiv:1706.04599, section 5


@dataclass(frozen=True)
class Scores:
    """Predictions compared with the true classes. A prediction that is not finite counts as wrong."""

    probabilities_NK: NDArray[np.float32]  # finite rows sum to 1
    labels_N: NDArray[np.int64]

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """Whether each prediction is finite."""
        return np.asarray(np.isfinite(self.probabilities_NK).all(1))

    @property
    def num_nonfinite(self) -> int:
        """Number of predictions that are not finite."""
        return int((~self.finite).sum())

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Most probable class of each image; `NO_PREDICTION` where the prediction is not finite."""
        return np.where(self.finite, self.probabilities_NK.argmax(1), NO_PREDICTION)

    @property
    def only_predicted(self) -> int | None:
        """The only class that is predicted although the images have several; None otherwise. Finite predictions only."""
        answers = np.unique(self.predicted[self.finite])
        return int(answers[0]) if len(answers) == 1 and self.num_present > 1 else None

    @property
    def num_present(self) -> int:
        """Number of classes that have images."""
        return len(np.unique(self.labels_N))

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly."""
        right: NDArray[np.bool_] = self.predicted == self.labels_N
        return right

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, 0 to 1."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(int(self.right.sum()), len(self.labels_N))

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy; None with few classes."""
        if self.probabilities_NK.shape[1] < TOP5_FROM:
            return None
        # Among equal probabilities the first class ranks higher, as in `predicted`.
        order_NK = np.argsort(-self.probabilities_NK, axis=1, kind="stable")[:, :5]
        return float(((order_NK == self.labels_N[:, None]).any(1) & self.finite).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy; infinite where a prediction is not finite."""
        if self.num_nonfinite:
            return math.inf
        own_N = self.probabilities_NK[np.arange(len(self.labels_N)), self.labels_N].astype(np.float64)
        return float(-np.log(np.maximum(own_N, np.finfo(np.float32).tiny)).mean())

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion matrix of the finite predictions: row is the true class, column the predicted one."""
        num_classes = self.probabilities_NK.shape[1]
        pairs = (self.labels_N * num_classes + self.predicted)[self.finite]
        return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images."""
        return float(np.mean([score.recall for score in self.classes if score.recall is not None]))

    @property
    def majority_baseline(self) -> float:
        """Accuracy of always predicting the most frequent class; its balanced accuracy is one over `num_present`."""
        return float(np.bincount(self.labels_N).max() / len(self.labels_N))

    @cached_property
    def classes(self) -> list[ClassScore]:
        """Scores of each class."""
        return class_scores(self.confusion, np.bincount(self.labels_N, minlength=len(self.confusion)))

    @cached_property
    def calibration(self) -> list[tuple[int, float, float]]:
        """Images, mean confidence and accuracy of each non-empty confidence bin; finite predictions only."""
        confidence_N, right_N = self.probabilities_NK[self.finite].max(1), self.right[self.finite]
        bin_N = np.minimum((confidence_N * _BINS).astype(np.int64), _BINS - 1)
        return [
            (int(chosen.sum()), float(confidence_N[chosen].mean()), float(right_N[chosen].mean()))
            for chosen in (bin_N == index for index in range(_BINS))
            if chosen.any()
        ]

    @property
    def calibration_error(self) -> float | None:
        """ECE: mean distance between confidence and accuracy over the bins, 0 to 1; None without a finite prediction."""
        distances = sum(count * abs(confidence - accuracy) for count, confidence, accuracy in self.calibration)
        return float(distances / self.finite.sum()) if self.finite.any() else None

    def confident_mistakes(self, most: int) -> list[int]:
        """Misclassified images with finite predictions, the most confident first."""
        wrong = np.flatnonzero(~self.right & self.finite)
        confidence = self.probabilities_NK[wrong].max(1)
        return [int(row) for row in wrong[np.argsort(-confidence, kind="stable")][:most]]


@dataclass(frozen=True)
class ClassifierResult:
    """Result of the evaluation of one model."""

    scores: Scores
    rows: list[int]  # images that could be evaluated
    lost: list[tuple[str, str]]  # path and reason of the others


def class_scores(confusion_KK: NDArray[np.int64], images_K: NDArray[np.int64] | None = None) -> list[ClassScore]:
    """Scores of each class; `images_K` counts its images, None where the confusion matrix has all of them."""
    return scores_from_counts(
        (confusion_KK.sum(1) if images_K is None else images_K).tolist(),
        confusion_KK.diagonal().tolist(),
        confusion_KK.sum(0).tolist(),
        confusions_of(confusion_KK, most=len(confusion_KK)),
    )


def confusions_of(confusion_KK: NDArray[np.int64], *, most: int) -> list[list[int]]:
    """Wrong predictions for each class, the most frequent first: alternately another class and its number of images."""
    wrong_KK = confusion_KK.copy()
    np.fill_diagonal(wrong_KK, 0)
    return [_confusions_of_one(row, most) for row in wrong_KK]


def _confusions_of_one(wrong_K: NDArray[np.int64], most: int) -> list[int]:
    others = np.flatnonzero(wrong_K)
    others = others[np.argsort(-wrong_K[others], kind="stable")][:most]
    pairs: list[int] = np.stack([others, wrong_K[others]], axis=1).ravel().tolist()
    return pairs


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of two models on the same images."""

    only_first: int  # images that only the first model classifies correctly
    only_second: int
    p_value: float  # two-sided, McNemar's exact test: probability of such a difference if both are equally good
    difference: float  # accuracy of the second model minus that of the first
    interval: tuple[float, float]  # 95 % interval of this difference


def compare(first: Scores, second: Scores) -> Comparison:
    """Compare two models.

    Sources: McNemar, Psychometrika 12 (1947), as the exact binomial test; the interval is Wald's for paired proportions.
    """
    b = int((first.right & ~second.right).sum())
    c = int((second.right & ~first.right).sum())
    total = len(first.labels_N)
    half = Z95 * math.sqrt(b + c - (b - c) ** 2 / total) / total
    difference = (c - b) / total
    return Comparison(
        only_first=b,
        only_second=c,
        p_value=_exact_p(min(b, c), b + c),
        difference=difference,
        interval=(difference - half, difference + half),
    )


def _exact_p(fewer: int, discordant: int) -> float:
    """Two-sided probability of so few discordant pairs on one side, in integer arithmetic, which does not overflow."""
    tail, term = 0, 1
    for k in range(fewer + 1):
        tail += term
        term = term * (discordant - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << discordant))
