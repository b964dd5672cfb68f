"""The most confident mistakes on held-out images, which show wrong labels and classes that look alike.

Shapes: N images of a batch, M mistakes kept, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 32  # mistakes kept, at most


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Misclassified images, the most confident first. On the CPU."""

    pixels_MHWC: Tensor  # uint8
    rows: list[int]  # row numbers in their split
    labels: list[int]
    predicted: list[int]
    confidences: list[float]  # probabilities of the predicted classes, 0 to 1


class MistakeCollector:
    """Keeps the most confident mistakes on the device, so that a pass waits for the device only once, at its end."""

    def __init__(self) -> None:
        self._kept: list[Tensor] | None = None

    def add(self, pixels_NHWC: Tensor, rows: Sequence[int], labels_N: Tensor, logits_NK: Tensor) -> None:
        """Add the mistakes of a batch; its uint8 pixels are kept to be shown."""
        confidence_N, predicted_N = logits_NK.softmax(1).max(1)
        # An image with NaN logits is no confident mistake, and must not rank above those that are.
        confidence_N = torch.where(predicted_N == labels_N, -1.0, confidence_N.nan_to_num(nan=0.0))
        rows_N = torch.tensor(rows, dtype=torch.int64).to(labels_N.device, non_blocking=True)
        found = [confidence_N, rows_N, labels_N, predicted_N, pixels_NHWC]
        self._kept = _surest(found) if self._kept is None else _joined(self._kept, _surest(found))

    def result(self) -> Mistakes | None:
        """Return the mistakes; None where every image was classified correctly."""
        if self._kept is None:
            return None
        confidence_M, rows_M, labels_M, predicted_M, pixels_MHWC = (part.cpu() for part in self._kept)
        wrong = int((confidence_M >= 0).sum())
        if not wrong:
            return None
        return Mistakes(
            pixels_MHWC=pixels_MHWC[:wrong], rows=rows_M[:wrong].tolist(), labels=labels_M[:wrong].tolist(),
            predicted=predicted_M[:wrong].tolist(), confidences=confidence_M[:wrong].tolist(),
        )  # fmt: skip


def _surest(found: list[Tensor]) -> list[Tensor]:
    order = found[0].sort(descending=True, stable=True).indices[:MOST]
    return [part[order] for part in found]


def _joined(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    return _surest([torch.cat(parts) for parts in zip(first, second, strict=True)])
