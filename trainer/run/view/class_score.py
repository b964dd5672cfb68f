"""Scores of one class: recall, its interval, precision and confusions. Imports no array library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.run.log.result_events import Evaluated

Z95 = 1.959963984540054  # normal quantile of a two-sided 95 % interval


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Scores of one class."""

    images: int  # 0 if none were evaluated
    correct: int
    predicted: int | None  # predictions of the class; None in old logs
    confusions: tuple[tuple[int, int], ...] = ()  # classes predicted instead and counts, most frequent first

    @property
    def recall(self) -> float | None:
        """Share of its images recognised (its accuracy); None without images."""
        return self.correct / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Share of its predictions that are right; None if it was never predicted."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of recall and precision; None if one of them is None."""
        return 2 * self.correct / (self.images + self.predicted) if self.images and self.predicted else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval of the recall; None without images."""
        return wilson_interval(self.correct, self.images) if self.images else None

    @property
    def confused_with(self) -> int | None:
        """The class most often predicted for its images instead; None if there is none."""
        return self.confusions[0][0] if self.confusions else None


def scores_from_counts(
    images: Sequence[int], correct: Sequence[int], predicted: Sequence[int], confusions: Sequence[Sequence[int]]
) -> list[ClassScore]:
    """Scores of all classes, from numbers by class; `predicted` and `confusions` (as in `Evaluated`) may be empty."""
    return [
        ClassScore(
            images=count,
            correct=right,
            predicted=predicted[label] if predicted else None,
            confusions=tuple(zip(confusions[label][::2], confusions[label][1::2], strict=True)) if confusions else (),
        )
        for label, (count, right) in enumerate(zip(images, correct, strict=True))
    ]


def scores_of(event: Evaluated) -> list[ClassScore]:
    """Scores of all classes in an evaluation."""
    return scores_from_counts(event.counts, event.correct, event.predicted, event.confusions)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson interval of a proportion, valid for few trials and near 0 and 1.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.
    """
    share, z2 = successes / trials, Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # The bounds 0 and 1 must be exact, in spite of rounding.
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)
