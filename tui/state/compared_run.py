"""Runs whose held-out curves are drawn together, or below those of another run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.run.view.overview import Point, RunOverview

COLOURS = ("train", "test", "good", "accent", "warn", "text")
"""Colours of the compared runs, one per run."""


@dataclass(frozen=True)
class Compared:
    """A run in a comparison.

    Attributes:
        label: One character, drawn at the end of its curve and in the list.
        style: Colour of its curve.
    """

    label: str
    style: str
    run: RunOverview

    def points(self, measure: str) -> tuple[Point, ...]:
        """Epochs and finite values.

        Args:
            measure: `accuracy` or `loss`.
        """
        points = self.run.accuracies if measure == "accuracy" else self.run.losses
        return tuple((epoch, value) for epoch, value in points if math.isfinite(value))
