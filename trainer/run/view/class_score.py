"""How one class fares: what share of it was found, how sure that is, and what it was taken for. Needs no array library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.run.log.events import Evaluated

Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class.

    Attributes:
        images: Of the class; 0 where none were measured.
        correct: Of them, how many were recognised.
        predicted: How often the class was answered; None in logs of before this was told.
        confusions: The classes that its images were taken for, each with how many, the most frequent first.
    """

    images: int
    correct: int
    predicted: int | None
    confusions: tuple[tuple[int, int], ...] = ()

    @property
    def recall(self) -> float | None:
        """Of its images, how many were found: its accuracy; None without images."""
        return self.correct / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Of its answers, how many were right; None where it was never answered."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; None where one of them is."""
        return 2 * self.correct / (self.images + self.predicted) if self.images and self.predicted else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval of the recall; None without images."""
        return wilson_interval(self.correct, self.images) if self.images else None

    @property
    def confused_with(self) -> int | None:
        """The class it is most often mistaken for; None where it never is."""
        return self.confusions[0][0] if self.confusions else None


def scores_from_counts(
    images: Sequence[int], correct: Sequence[int], predicted: Sequence[int], confusions: Sequence[Sequence[int]]
) -> list[ClassScore]:
    """All classes.

    Args:
        images: Of each class.
        correct: Of each class.
        predicted: Of each class; may be empty.
        confusions: Of each class, classes and numbers of images by turns; may be empty.
    """
    return [
        ClassScore(
            images=count,
            correct=right,
            predicted=predicted[label] if predicted else None,
            confusions=_pairs(confusions[label]) if confusions else (),
        )
        for label, (count, right) in enumerate(zip(images, correct, strict=True))
    ]


def scores_of(event: Evaluated) -> list[ClassScore]:
    """All classes as an evaluation found them."""
    return scores_from_counts(event.counts, event.correct, event.predicted, event.confusions)


def _pairs(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion, sound for few trials and near 0 and 1.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.
    """
    share, z2 = successes / trials, Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # Rounding must not leave the bounds that it reaches exactly.
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)
