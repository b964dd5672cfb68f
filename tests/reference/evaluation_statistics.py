"""Statistics of predictions in plain float64 arithmetic, image by image.

Sources: Wilson (1927) by its defining equation; McNemar's exact test as the two-sided binomial test; the paired interval by the
spread of the differences of each image; calibration error of Guo et al., arXiv:1706.04599, equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class PlainClass:
    """One class; None for divisions by zero."""

    images: int
    correct: int
    predicted: int
    recall: float | None
    precision: float | None
    f1: float | None
    confusions: list[tuple[int, int]]


def plain_classes(labels: Sequence[int], answers: Sequence[int], num_classes: int) -> list[PlainClass]:
    """Statistics of each class from true and false positives and negatives; -1 means no answer."""
    results = []
    pairs = list(zip(labels, answers, strict=True))
    for one in range(num_classes):
        true_positive = sum(label == one == answer for label, answer in pairs)
        false_positive = sum(label != one == answer for label, answer in pairs)
        false_negative = sum(label == one != answer for label, answer in pairs)
        images, predicted = true_positive + false_negative, true_positive + false_positive
        recall = true_positive / images if images else None
        precision = true_positive / predicted if predicted else None
        f1 = None
        if recall is not None and precision is not None:
            f1 = 2 * precision * recall / (precision + recall) if true_positive else 0.0
        others = [(other, pairs.count((one, other))) for other in range(num_classes) if other != one]
        confusions = sorted(((other, count) for other, count in others if count), key=lambda pair: -pair[1])
        results.append(PlainClass(images, true_positive, predicted, recall, precision, f1, confusions))
    return results


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """All proportions p within z standard errors, sqrt(p (1 - p) / n), of the share, found by bisection."""
    share = successes / trials

    def within(p: float) -> bool:
        return abs(share - p) <= Z95 * math.sqrt(p * (1 - p) / trials)

    def bound(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if within(middle) else (inside, middle)
        return inside

    return (0.0 if successes == 0 else bound(share, 0.0), 1.0 if successes == trials else bound(share, 1.0))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Probability of an at least as uneven split of the discordant pairs, if both sides are equally likely, by enumeration."""
    pairs = only_first + only_second
    uneven = abs(only_first - only_second)
    as_uneven = sum(math.comb(pairs, k) for k in range(pairs + 1) if abs(2 * k - pairs) >= uneven)
    return float(Fraction(as_uneven, 2**pairs))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, tuple[float, float]]:
    """Mean of the differences (1, 0 or -1) of each image, and its 95 % interval from their standard deviation."""
    differences = [int(b) - int(a) for a, b in zip(first, second, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((difference - mean) ** 2 for difference in differences) / len(differences)
    half = Z95 * math.sqrt(variance / len(differences))
    return mean, (mean - half, mean + half)


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Distance of mean confidence and accuracy in equally wide bins of confidence, weighted by their images."""
    total = 0.0
    for index in range(bins):
        chosen = [
            (confidence, hit)
            for confidence, hit in zip(confidences, right, strict=True)
            if index / bins <= confidence < (index + 1) / bins or (index == bins - 1 and confidence == 1.0)
        ]
        if chosen:
            mean = sum(confidence for confidence, _ in chosen) / len(chosen)
            accuracy = sum(hit for _, hit in chosen) / len(chosen)
            total += len(chosen) / len(confidences) * abs(mean - accuracy)
    return total


def rank_of(probabilities: Sequence[float], label: int) -> int:
    """Number of classes that are more probable than `label`."""
    return sum(probability > probabilities[label] for probability in probabilities)
