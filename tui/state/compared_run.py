"""Runs whose held-out curves are drawn together, or below those of another run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.run.view.overview import Point, RunOverview

COLOURS = ("train", "test", "good", "accent", "warn", "text")  # one per compared run


@dataclass(frozen=True)
class Compared:
    """A run in a comparison; `label` is one character, drawn at the end of its curve and in the list."""

    label: str
    style: str
    run: RunOverview

    def points(self, measure: str) -> tuple[Point, ...]:
        """Epochs and finite values of `accuracy` or `loss`."""
        points = self.run.accuracies if measure == "accuracy" else self.run.losses
        return tuple((epoch, value) for epoch, value in points if math.isfinite(value))
