"""Carries step metrics from the device to the log, and accounts for the time that a run spends on each activity.

The training thread never waits for a value: a window of steps is copied to pinned memory asynchronously, and read later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CAPACITY = 64  # steps per window, at most


@dataclass(frozen=True)
class Window:
    """Metrics of consecutive steps, on the host."""

    first_step: int
    losses: list[float]
    accuracies: list[float]  # top-1, 0 to 1
    skipped: list[bool]  # whether the loss or gradient was not finite
    lrs: list[float]
    images: list[int]
    seconds: float


class StepMetrics:
    """Two windows of (loss, top-1, skipped) on the device: one is filled while the other is copied out, or read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers = [torch.zeros(CAPACITY, 3, device=device) for _ in range(2)]
        # On a CPU nothing is copied: the other window is filled meanwhile.
        self._host = self._buffers
        if device.type != "cpu":
            self._host = [torch.zeros(CAPACITY, 3, pin_memory=device.type == "cuda") for _ in range(2)]
        self._current = 0
        self._first_step = 0
        self._lrs: list[float] = []
        self._images: list[int] = []
        self._copying: tuple[int, int, list[float], list[int], float, torch.cuda.Event | None] | None = None

    def __len__(self) -> int:
        """Steps in the current window."""
        return len(self._lrs)

    @property
    def full(self) -> bool:
        """Whether the current window must be copied out before the next step."""
        return len(self) == CAPACITY

    def reserve_slot(self, step: int, lr: float, images: int) -> Tensor:
        """Reserve room for the metrics of the next step (from 1): float32 (3,) on the device."""
        if not self._lrs:
            self._first_step = step
        self._lrs.append(lr)
        self._images.append(images)
        return self._buffers[self._current][len(self._lrs) - 1]

    def discard_slot(self) -> None:
        """Release the room of the newest step, which failed."""
        del self._lrs[-1], self._images[-1]

    def start_copy(self, seconds: float) -> None:
        """Start to copy the current window, whose steps took `seconds`, and begin the other; `collect` the previous first."""
        assert self._copying is None, "collect() the previous window first"
        if not self._lrs:
            return
        count = len(self._lrs)
        if self._host is not self._buffers:
            self._host[self._current][:count].copy_(self._buffers[self._current][:count], non_blocking=True)
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        elif self._device.type == "mps":
            torch.mps.synchronize()
        self._copying = (self._current, self._first_step, self._lrs, self._images, seconds, event)
        self._current = 1 - self._current
        self._lrs, self._images = [], []

    def collect(self, *, wait: bool = False) -> Window | None:
        """The window whose copy has ended; None without one. With `wait`, a copy in progress is waited for."""
        if self._copying is None:
            return None
        index, first_step, lrs, images, seconds, event = self._copying
        if event is not None and not event.query():
            if not wait:
                return None
            event.synchronize()
        self._copying = None
        losses, accuracies, skipped = self._host[index][: len(lrs)].t().tolist()
        return Window(first_step, losses, accuracies, [value != 0 for value in skipped], lrs, images, seconds)

    def forget(self) -> None:
        """Drop all metrics not yet published: a return to an earlier state undoes these steps."""
        self.collect(wait=True)
        self._lrs, self._images = [], []


class Stopwatch:
    """Charges every second of a thread to exactly one activity."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self._activity = "prepare"
        self.seconds: dict[str, float] = {}

    def switch(self, activity: str) -> str:
        """Charge the time so far and continue with another activity; returns the previous one, to switch back to."""
        now = self._clock()
        self.seconds[self._activity] = self.seconds.get(self._activity, 0.0) + now - self._since
        before, self._activity, self._since = self._activity, activity, now
        return before

    def of(self, *activities: str) -> float:
        """Seconds charged to some activities until now."""
        self.switch(self._activity)
        return sum(self.seconds.get(activity, 0.0) for activity in activities)

    def budget(self) -> dict[str, float]:
        """Seconds by activity, for the time pane, without pauses and preparation."""
        self.switch(self._activity)
        return {name: round(self.seconds.get(name, 0.0), 3) for name in ("data", "compute", "evaluate", "save")}
