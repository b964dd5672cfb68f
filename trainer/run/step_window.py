"""How fast the last steps were."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_WINDOW_S = 30.0


@dataclass
class StepWindow:
    """The steps of the last half minute of training; pauses and evaluations do not count."""

    _seconds: float = 0.0
    _steps: int = 0
    _images: int = 0
    _groups: deque[tuple[int, int, float]] = field(default_factory=deque)

    def add(self, steps: int, images: int, seconds: float) -> None:
        """Add the newest steps, and leave out what is older than half a minute."""
        self._groups.append((steps, images, seconds))
        self._count(steps, images, seconds)
        while len(self._groups) > 2 and self._seconds - self._groups[0][2] > _WINDOW_S:
            steps, images, seconds = self._groups.popleft()
            self._count(-steps, -images, -seconds)

    def _count(self, steps: int, images: int, seconds: float) -> None:
        self._steps += steps
        self._images += images
        self._seconds += seconds

    @property
    def images_per_s(self) -> float | None:
        """Training images a second; None until steps have been timed."""
        return self._images / self._seconds if self._seconds > 0 else None

    @property
    def step_s(self) -> float | None:
        """Seconds of a step; None until steps have been timed."""
        return self._seconds / self._steps if self._steps else None
