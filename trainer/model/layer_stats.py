"""Per-layer statistics that need no extra step: norms and histograms of weights and gradients, and silent channels.

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

from trainer.run.log.result_events import LayersMeasured

BINS = 24  # in a histogram
_SAMPLED = 8192  # values per layer in a histogram: for 24 bins as good as millions, at a hundredth of the time
_MIN_CHECKED_IMAGES = 32  # minimum number of images per batch of an evaluation that are checked for silent channels


def layer_statistics(model: nn.Module, *, step: int, epoch: float) -> LayersMeasured:
    """Norms and histograms of the weights, and of the gradients of the last step. Waits for the device once.

    A layer without a gradient counts as frozen; `step` and `epoch` are those done.
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
    """Finds channels behind a ReLU that are 0, everywhere, for all checked images of an evaluation."""

    def __init__(self) -> None:
        self._answered: dict[str, Tensor] = {}

    @contextmanager
    def watching(self, model: nn.Module, images: int) -> Iterator[None]:
        """Check a ResNet's forward passes in eval mode; a batch's images after the first `images` are padding."""
        handles = [module.register_forward_hook(self._noting(name, images)) for name, module in _rectified(model)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def shares(self) -> dict[str, float]:
        """Share of silent channels, 0 to 1, by the convolution before the ReLU; only convolutions that have any."""
        if not self._answered:
            return {}
        silent = torch.stack([1.0 - answered_C.float().mean() for answered_C in self._answered.values()]).tolist()
        return {name: round(share, 4) for name, share in zip(self._answered, silent, strict=True) if share > 0}

    def _noting(self, name: str, images: int) -> Callable[[nn.Module, object, Tensor], None]:
        every = max(images // _MIN_CHECKED_IMAGES, 1)

        def note(module: nn.Module, inputs: object, output_NCHW: Tensor) -> None:
            # A channel with a NaN is not silent.
            answered_C = ~(output_NCHW[:images:every].amax((0, 2, 3)) <= 0)
            before_C = self._answered.get(name)
            self._answered[name] = answered_C if before_C is None else before_C | answered_C

        return note


def _rectified(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose output enters a ReLU next, or has just left one, by the name of the convolution before it."""
    modules = dict(model.named_modules())
    yield "conv1", modules["maxpool"]
    for name, module in modules.items():
        if isinstance(module, BasicBlock):
            yield f"{name}.conv1", module.bn1
            yield f"{name}.conv2", module


def _figures(tensors: Sequence[Tensor]) -> list[tuple[float, float, list[int]]]:
    """Norm, largest sampled magnitude, and a histogram from minus to plus it; no bins where no finite value differs from 0."""
    if not tensors:
        return []
    norms_L = torch.stack([tensor.detach().float().norm() for tensor in tensors])
    samples = [tensor.detach().flatten()[:: _stride(tensor.numel())].float() for tensor in tensors]
    flat = torch.cat([norms_L, *samples]).cpu().numpy()
    norms, values = flat[: len(tensors)], flat[len(tensors) :]
    ends = np.cumsum([len(sample) for sample in samples])[:-1]
    return [(_rounded(norm), *_histogram(of)) for norm, of in zip(norms, np.split(values, ends), strict=True)]


def _stride(values: int) -> int:
    """Sampling stride; odd, so that it never aligns with layer widths, which are powers of two."""
    return max(values // _SAMPLED, 1) | 1


def _histogram(values_S: NDArray[np.float32]) -> tuple[float, list[int]]:
    finite_S = values_S[np.isfinite(values_S)]
    reach = float(np.abs(finite_S).max(initial=0.0))
    if reach == 0.0:
        return 0.0, []
    counts, _ = np.histogram(finite_S, bins=BINS, range=(-reach, reach))
    return _rounded(reach), counts.tolist()


def _rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}") if math.isfinite(value) else math.nan
