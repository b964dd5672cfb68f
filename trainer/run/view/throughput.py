"""Throughput of the last steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

_WINDOW_S = 30.0

StepGroup = tuple[int, int, float]  # number of steps, number of images, seconds


@dataclass
class StepWindow:
    """Steps of the last half minute of training; pauses and evaluations do not count."""

    _groups: list[StepGroup] = field(default_factory=list)

    def add(self, groups: Sequence[StepGroup]) -> None:
        """Add the newest steps, and drop those older than half a minute."""
        kept: list[StepGroup] = []
        seconds = 0.0
        for group in chain(reversed(groups), reversed(self._groups)):
            if len(kept) > 1 and seconds > _WINDOW_S:
                break
            kept.append(group)
            seconds += group[2]
        self._groups = kept[::-1]

    @property
    def images_per_s(self) -> float | None:
        """Training images per second; None until steps have been timed."""
        seconds = self._seconds
        return sum(images for _, images, _ in self._groups) / seconds if seconds > 0 else None

    @property
    def step_s(self) -> float | None:
        """Seconds per step; None until steps have been timed."""
        steps = sum(steps for steps, _, _ in self._groups)
        return self._seconds / steps if steps else None

    @property
    def _seconds(self) -> float:
        return sum(seconds for _, _, seconds in self._groups)
