"""Batches of a split that is in memory: on the training device, or in RAM where only that has room."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.data.batches.batches import Batch, Batches, BatchPlan
from trainer.data.batches.upload import Upload
from trainer.data.dataset import ResidentSplit


class ResidentBatches(Batches):
    """Batches as rows of a tensor of all images."""

    def __init__(self, split: ResidentSplit, plan: BatchPlan, device: torch.device) -> None:
        self._plan = plan
        self._pixels = split.pixels_NHWC
        self._labels = split.labels_N.to(self._pixels.device)
        self._positions = torch.arange(plan.num_images, device=self._pixels.device)
        self._upload = None if self._pixels.device.type == device.type else Upload(device)

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step onwards."""
        order = self._plan.order(epoch).to(self._pixels.device)
        labels = self._labels[order]
        for step in range(first_step, self._plan.steps_per_epoch):
            start, ids = self._plan.rows_of(order, step)
            part = slice(start, start + len(ids))
            if self._upload is None:
                yield Batch(self._pixels, ids, ids, self._positions[part], labels[part], fixed_pixels=True)
            else:
                yield self._upload(self._pixels.index_select(0, ids), ids, self._positions[part], labels[part])
