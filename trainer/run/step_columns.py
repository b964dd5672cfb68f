"""Steps of the log as columns of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from trainer.run.events import number
from trainer.run.step_window import StepGroup


@dataclass(frozen=True)
class StepColumns:
    """Steps of one or more `steps` lines. A value that was not finite is NaN.

    Attributes:
        steps: Their numbers.
        nonfinite: Losses that were not finite.
        budget: As in `Steps`.
        firsts: First step of each line.
        groups: Steps, images and seconds of each line.
    """

    steps: array[float]
    losses: array[float]
    accuracies: array[float]
    rates: array[float]
    nonfinite: int
    budget: dict[str, float]
    firsts: list[int]
    groups: list[StepGroup]

    @classmethod
    def of(cls, lines: Sequence[Sequence[Any]], budget: dict[str, float]) -> StepColumns:
        """Columns of what lines say.

        Args:
            lines: One or more, each with what `trainer.run.log_lines.STEP_FIELDS` names.
            budget: Of the newest that has one; may be empty.

        Raises:
            TypeError, ValueError, OverflowError: Where a line is damaged.
        """
        firsts, losses, accuracies, rates, images, seconds = zip(*lines, strict=True)
        counts = list(map(len, losses))
        if not counts == list(map(len, accuracies)) == list(map(len, rates)) or 0 in counts:
            raise ValueError("steps with unequal numbers of losses, accuracies and rates")
        all_losses = list(chain.from_iterable(losses))
        return cls(
            steps=_numbered(list(firsts), counts), losses=_numbers(all_losses), nonfinite=all_losses.count(None),
            accuracies=_numbers(list(chain.from_iterable(accuracies))), rates=_numbers(list(chain.from_iterable(rates))),
            budget=budget, firsts=list(firsts), groups=list(zip(counts, map(int, images), map(float, seconds), strict=True)),
        )  # fmt: skip


def _numbered(firsts: list[int], counts: list[int]) -> array[float]:
    if firsts == list(accumulate(counts[:-1], initial=firsts[0])):
        return array("d", list(range(firsts[0], firsts[-1] + counts[-1])))
    return array(
        "d", [step for first, count in zip(firsts, counts, strict=True) for step in range(first, first + count)]
    )


def _numbers(values: list[float | None]) -> array[float]:
    """A null becomes NaN."""
    return array("d", map(number, values) if None in values else values)  # type: ignore[arg-type]
