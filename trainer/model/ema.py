"""A moving average of the weights, often more accurate than the weights themselves.

Batch-norm statistics are averaged too: averaged weights do not fit the statistics of the raw ones
(pytorch/pytorch#84053).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ModelEma:
    """Moving average of a model over its steps; `model` is a copy in eval mode that holds the average."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the model's current weights and its memory format; `decay` is per step, 0 to 1, and warms up."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._source = model
        self._decay = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step `step` (from 1) to the average.

        The decay is at most (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage, to forget early weights.
        """
        if self._pairs is None:
            # Not earlier: `join_statistics` may have moved the statistics to other memory since.
            self._pairs = self._matched()
        averages, sources = self._pairs
        torch._foreach_lerp_(averages, sources, 1.0 - min(self._decay, (1.0 + step) / (10.0 + step)))

    def _matched(self) -> tuple[list[Tensor], list[Tensor]]:
        averages, sources = self.model.state_dict(), self._source.state_dict()
        names = [name for name, value in averages.items() if value.is_floating_point()]
        return [averages[name] for name in names], [sources[name] for name in names]
