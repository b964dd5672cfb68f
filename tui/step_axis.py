"""The labels below curves: epochs, or steps. Pure."""

from __future__ import annotations

import math

from trainer.run.view import RunView

_EPOCH_CELLS = 8
_STEP_CELLS = 12
"""Cells that a label takes with its gap."""


def step_labels(view: RunView, left: float, right: float, width: int, *, by_epoch: bool) -> list[tuple[float, str]]:
    """Positions and texts, the first with its unit.

    Args:
        view: The run.
        left: First step that is shown.
        right: Last one.
        width: Cells in which they are shown.
        by_epoch: Whether epochs are counted, where at least two are shown, or steps.
    """
    if view.started is None:
        return []
    per_epoch = view.started.steps_per_epoch
    if by_epoch and right - left >= 2 * per_epoch:
        return _labels(left / per_epoch, right / per_epoch, width // _EPOCH_CELLS, "epoch", per_epoch)
    return _labels(left, right, width // _STEP_CELLS, "step", 1)


def _labels(left: float, right: float, wanted: int, unit: str, size: int) -> list[tuple[float, str]]:
    stride = _nice_stride((right - left) / max(wanted, 1))
    numbers = range(math.ceil(left / stride - 1e-9) * stride, math.floor(right + 1e-9) + 1, stride)
    return [(float(n * size), f"{n:,}" if index else f"{unit} {n:,}") for index, n in enumerate(numbers)]


def _nice_stride(least: float) -> int:
    """The next of 1, 2, 5, 10, 20, 25, 50, ... that is not below."""
    power = 10 ** max(math.floor(math.log10(max(least, 1.0))), 0)
    choices = (1, 2, 5, 10) if power == 1 else (1, 2, 2.5, 5, 10)
    return next(int(factor * power) for factor in choices if factor * power >= least)
