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
        self._earlier_steps: deque[torch.cuda.Event] = deque()

    def __call__(self, pixels_NHWC: Tensor, ids_N: Tensor, positions_N: Tensor, labels_N: Tensor) -> Batch:
        """Copy a batch, given on the CPU: uint8 pixels, and int64 numbers and positions of the images, and labels."""
        numbers_4N = torch.stack((torch.arange(len(ids_N)), ids_N, positions_N, labels_N))
        if self._stream is None:
            return Batch(pixels_NHWC.to(self._device), *numbers_4N.to(self._device).unbind())
        self._limit_batches_ahead()
        with torch.cuda.stream(self._stream):
            pixels, numbers = (
                values.pin_memory().to(self._device, non_blocking=True) for values in (pixels_NHWC, numbers_4N)
            )
        steps = torch.cuda.current_stream(self._device)
        steps.wait_stream(self._stream)
        for values in (pixels, numbers):
            values.record_stream(steps)  # its memory is not used again before the step has run
        return Batch(pixels, *numbers.unbind())

    def _limit_batches_ahead(self) -> None:
        launched = torch.cuda.Event()
        launched.record()
        self._earlier_steps.append(launched)
        if len(self._earlier_steps) > _AHEAD:
            oldest = self._earlier_steps.popleft()
            if not oldest.query():
                oldest.synchronize()
