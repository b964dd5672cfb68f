"""Copies decoded batches to the training device, on a GPU beside the steps that run there."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from trainer.data.batches.batches import Batch

_AHEAD = 3  # batches on the device whose steps may not have run yet; more would only cost memory


class Upload:
    """Copies batches through pinned memory on a stream of its own, so that neither the caller nor a step waits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        # Batches whose steps may not have run yet, each with an event behind its step.
        self._in_use: deque[tuple[torch.cuda.Event, tuple[Tensor, ...]]] = deque()
        self._newest: tuple[Tensor, ...] = ()

    def __call__(self, pixels_NHWC: Tensor, ids_N: Tensor, positions_N: Tensor, labels_N: Tensor) -> Batch:
        """Copy a batch, given on the CPU: uint8 pixels, and int64 numbers and positions of the images, and labels."""
        numbers_4N = torch.stack((torch.arange(len(ids_N)), ids_N, positions_N, labels_N))
        if self._stream is None:
            return Batch(pixels_NHWC.to(self._device), *numbers_4N.to(self._device).unbind())
        self._release_used()
        with torch.cuda.stream(self._stream):
            self._newest = tuple(
                values.pin_memory().to(self._device, non_blocking=True) for values in (pixels_NHWC, numbers_4N)
            )
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        pixels, numbers = self._newest
        return Batch(pixels, *numbers.unbind())

    def _release_used(self) -> None:
        """Free the memory of batches whose steps have run; wait where too many have not."""
        launched = torch.cuda.Event()
        launched.record()
        self._in_use.append((launched, self._newest))
        while self._in_use and (len(self._in_use) > _AHEAD or self._in_use[0][0].query()):
            oldest, _ = self._in_use[0]
            if not oldest.query():
                oldest.synchronize()
            self._in_use.popleft()
