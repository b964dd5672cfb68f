"""The most confident mistakes of a pass over held-out images: wrong labels, and classes that look alike, show there first.

Shapes: N images of a batch, M mistakes kept, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 32
"""That are kept."""


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Images that were not recognised, the most confident first. On the CPU.

    Attributes:
        pixels_MHWC: uint8.
        rows: Of the images in their split.
        labels: Their classes.
        predicted: What they were taken for.
        confidences: Probability of that, 0 to 1.
    """

    pixels_MHWC: Tensor
    rows: list[int]
    labels: list[int]
    predicted: list[int]
    confidences: list[float]


class MistakeCollector:
    """Keeps the most confident mistakes on the device, so that a pass waits for it only once, at its end."""

    def __init__(self) -> None:
        self._kept: list[Tensor] | None = None

    def add(self, pixels_NHWC: Tensor, rows: Sequence[int], labels_N: Tensor, logits_NK: Tensor) -> None:
        """Look at a batch.

        Args:
            pixels_NHWC: uint8, as the network's input was made from.
            rows: Of the images in their split.
            labels_N: int64.
            logits_NK: float32.
        """
        confidence_N, predicted_N = logits_NK.softmax(1).max(1)
        # An image whose logits are not numbers is no confident mistake, and must not stand before those that are.
        confidence_N = torch.where(predicted_N == labels_N, -1.0, confidence_N.nan_to_num(nan=0.0))
        rows_N = torch.tensor(rows, dtype=torch.int64).to(labels_N.device, non_blocking=True)
        found = [confidence_N, rows_N, labels_N, predicted_N, pixels_NHWC]
        self._kept = _surest(found) if self._kept is None else _joined(self._kept, _surest(found))

    def result(self) -> Mistakes | None:
        """What was found; None where every image was recognised."""
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
