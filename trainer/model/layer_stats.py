"""What can be told of each layer without a step more: its weights, its gradients, and channels that answer to nothing.

Shapes: L layers with weights (21 of ResNet-18: 20 convolutions and the classifier), S sampled values, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from trainer.run.log.events import LayersMeasured

BINS = 24
"""Of a histogram."""

_SAMPLED = 8192
"""Values of a layer that a histogram is made of: as good as millions for what 24 bins show, at a hundredth of the time."""

_LOOKED_AT = 32
"""Images of each batch of an evaluation, at least, that are looked at for channels that answer to none."""


def measured_layers(model: nn.Module, *, step: int, epoch: float) -> LayersMeasured:
    """Norms and histograms of weights, and of the gradients of the last step. Waits for the device once.

    Args:
        model: After a step whose gradients are still there; a layer without one counts as frozen.
        step: Steps done.
        epoch: Epochs done.
    """
    layers = {
        name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    gradients = [weight.grad for weight in layers.values()]
    weights = _figures(list(layers.values()))
    moved = iter(_figures([gradient for gradient in gradients if gradient is not None]))
    changes = [None if gradient is None else next(moved) for gradient in gradients]
    return LayersMeasured(
        step=step, epoch=epoch, names=list(layers), parameters=[weight.numel() for weight in layers.values()],
        weight_norms=[norm for norm, _, _ in weights], weight_ranges=[reach for _, reach, _ in weights],
        weights=[counts for _, _, counts in weights],
        gradient_norms=[change and change[0] for change in changes], gradient_ranges=[change and change[1] for change in changes],
        gradients=[change[2] if change else [] for change in changes],
    )  # fmt: skip


class SilentChannels:
    """Finds channels behind a ReLU that are 0, everywhere, for all images of an evaluation that are looked at."""

    def __init__(self) -> None:
        self._answered: dict[str, Tensor] = {}

    @contextmanager
    def watching(self, model: nn.Module, images: int) -> Iterator[None]:
        """Look at forward passes of a ResNet within the block.

        Args:
            model: In eval mode.
            images: Of each pass; what follows them was filled up.
        """
        handles = [module.register_forward_hook(self._noting(name, images)) for name, module in _rectified(model)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def shares(self) -> dict[str, float]:
        """Share of the channels that are silent, by the convolution before the ReLU; those without any are left out."""
        if not self._answered:
            return {}
        silent = torch.stack([1.0 - answered_C.float().mean() for answered_C in self._answered.values()]).tolist()
        return {name: round(share, 4) for name, share in zip(self._answered, silent, strict=True) if share > 0}

    def _noting(self, name: str, images: int) -> Callable[[nn.Module, object, Tensor], None]:
        every = max(images // _LOOKED_AT, 1)

        def note(module: nn.Module, inputs: object, output_NCHW: Tensor) -> None:
            # A NaN is no silence.
            answered_C = ~(output_NCHW[:images:every].amax((0, 2, 3)) <= 0)
            before_C = self._answered.get(name)
            self._answered[name] = answered_C if before_C is None else before_C | answered_C

        return note


def _rectified(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose output goes through a ReLU next, or has come through one, by the convolution before it."""
    modules = dict(model.named_modules())
    yield "conv1", modules["maxpool"]
    for name, module in modules.items():
        if isinstance(module, BasicBlock):
            yield f"{name}.conv1", module.bn1
            yield f"{name}.conv2", module


def _figures(tensors: Sequence[Tensor]) -> list[tuple[float, float, list[int]]]:
    """Euclidean norm, the largest magnitude, and how many of the sampled values lie in each bin from minus that to plus that.

    Bins are empty where no value is finite.
    """
    if not tensors:
        return []
    norms_L = torch.stack([tensor.detach().float().norm() for tensor in tensors])
    samples = [tensor.detach().flatten()[:: _stride(tensor.numel())].float() for tensor in tensors]
    flat = torch.cat([norms_L, *samples]).cpu().numpy()
    norms, values = flat[: len(tensors)], flat[len(tensors) :]
    ends = np.cumsum([len(sample) for sample in samples])[:-1]
    return [(_rounded(norm), *_histogram(of)) for norm, of in zip(norms, np.split(values, ends), strict=True)]


def _stride(values: int) -> int:
    """Every how manieth value is taken: odd, so that it does not go along with widths, which are powers of two."""
    return max(values // _SAMPLED, 1) | 1


def _histogram(values_S: NDArray[np.float32]) -> tuple[float, list[int]]:
    finite_S = values_S[np.isfinite(values_S)]
    reach = float(np.abs(finite_S).max(initial=0.0))
    if reach == 0.0:
        return 0.0, []
    counts, _ = np.histogram(finite_S, bins=BINS, range=(-reach, reach))
    return _rounded(reach), counts.tolist()


def _rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}") if math.isfinite(value) else math.nan
