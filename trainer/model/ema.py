"""A moving average of the weights, which often is more accurate than the weights themselves.

Batch-norm statistics are averaged too: weights that are averaged alone do not fit them (pytorch/pytorch#84053).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ModelEma:
    """The average of a model over its steps.

    Attributes:
        model: A copy in eval mode that holds the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the model as it is.

        Args:
            model: That is trained, in its memory format.
            decay: Of a step, 0 to 1. In the first steps less: there is nothing worth keeping yet.
        """
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._source = model
        self._decay = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take a step's weights in.

        Args:
            step: Steps done, this one included. Warm-up: (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage.
        """
        if self._pairs is None:
            # Only now: whoever watches over statistics may have put them into other memory since.
            self._pairs = self._matched()
        averages, sources = self._pairs
        torch._foreach_lerp_(averages, sources, 1.0 - min(self._decay, (1.0 + step) / (10.0 + step)))

    def _matched(self) -> tuple[list[Tensor], list[Tensor]]:
        averages, sources = self.model.state_dict(), self._source.state_dict()
        names = [name for name, value in averages.items() if value.is_floating_point()]
        return [averages[name] for name in names], [sources[name] for name in names]
