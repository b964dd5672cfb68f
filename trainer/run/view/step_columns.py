"""Steps of the log as columns of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from trainer.run.log.event import number
from trainer.run.view.throughput import StepGroup


@dataclass(frozen=True)
class StepColumns:
    """Columns of the steps of one or more `steps` lines. A non-finite value is NaN."""

    steps: array[float]
    losses: array[float]
    accuracies: array[float]
    rates: array[float]
    nonfinite: int  # number of non-finite losses
    budget: dict[str, float]  # seconds by activity, from the newest line that has them; may be empty
    firsts: list[int]  # first step of each line
    groups: list[StepGroup]  # steps, images and seconds of each line

    @classmethod
    def of(
        cls,
        firsts: list[int],
        counts: list[int],
        values: Sequence[list[Any]],
        groups: list[StepGroup],
        budget: dict[str, float],
    ) -> StepColumns:
        """Columns of lines of `counts` steps each. `values` are losses (None: non-finite), accuracies and rates."""
        losses, accuracies, rates = values
        nonfinite = losses.count(None)
        return cls(
            steps=_numbered(firsts, counts), losses=array("d", map(number, losses) if nonfinite else losses),
            nonfinite=nonfinite, accuracies=array("d", accuracies), rates=array("d", rates), budget=budget, firsts=firsts,
            groups=groups,
        )  # fmt: skip


def _numbered(firsts: list[int], counts: list[int]) -> array[float]:
    if firsts == list(accumulate(counts[:-1], initial=firsts[0])):
        return array("d", list(range(firsts[0], firsts[-1] + counts[-1])))
    return array(
        "d", [step for first, count in zip(firsts, counts, strict=True) for step in range(first, first + count)]
    )
