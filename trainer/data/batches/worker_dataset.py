"""Batches of decoded images, as they are asked for and as they come: in a worker process or in this one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.batches.batches import Plan
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import FolderSplit, read_images


class DecodedBatch(NamedTuple):
    """What comes from a worker.

    Attributes:
        pixels_NHWC: uint8 of the images that could be read; an array goes through a pipe, a tensor through shared memory.
        rows: That were asked for.
        kept: Which of these the images are.
        lost: Path and reason of the others.
    """

    pixels_NHWC: Tensor | np.ndarray[Any, np.dtype[np.uint8]]
    rows: list[int]
    kept: list[int]
    lost: list[tuple[str, str]]


class DecodeRequest(NamedTuple):
    """What a worker is sent.

    Attributes:
        rows: Of the images.
        rests: Of their paths, behind what all have in common.
    """

    rows: list[int]
    rests: list[str]


@dataclass(frozen=True)
class BatchSampler:
    """What is asked for, batch by batch, in the epochs that are left.

    Attributes:
        split: Images.
        prefix: What all their paths begin with; it is not sent with each of them.
        plan: How they are cut into batches.
        epochs: That are left.
        first_step: Of the first of these.
    """

    split: FolderSplit
    prefix: str
    plan: Plan
    epochs: range
    first_step: int

    def __iter__(self) -> Iterator[DecodeRequest]:
        first = self.first_step
        for epoch in self.epochs:
            order = self.plan.order(epoch)
            for step in range(first, self.plan.steps_per_epoch):
                rows = self.plan.rows_of(order, step)[1].tolist()
                yield DecodeRequest(rows, [self.split.paths[row][len(self.prefix) :] for row in rows])
            first = 0


class DecodedBatches(Dataset[DecodedBatch]):
    """A folder's images, whose items are whole batches.

    It holds no list of the images: what a worker is started with has to be small. It is written to a pipe that the worker reads
    seconds later, and if the worker dies before that, whoever writes more than the pipe holds would wait for ever.
    """

    def __init__(self, decoder: Decoder, prefix: str, *, shared: bool, as_array: bool) -> None:
        """Decode, wherever this is.

        Args:
            decoder: How a file becomes pixels.
            prefix: As of `BatchSampler`.
            shared: Put the pixels into memory that another process can map.
            as_array: Deliver an array and not a tensor, which torch would move to shared memory.
        """
        self._decoder = decoder
        self._prefix = prefix
        self._shared = shared
        self._as_array = as_array

    def __getitem__(self, asked_for: DecodeRequest) -> DecodedBatch:
        paths = [self._prefix + rest for rest in asked_for.rests]
        reading = read_images(self._decoder, paths, shared=self._shared)
        pixels = reading.pixels_NHWC.numpy() if self._as_array else reading.pixels_NHWC
        return DecodedBatch(pixels, asked_for.rows, reading.kept, reading.lost)


class InThisProcess:
    """Decodes when it is asked to, in the trainer itself: `data.workers=0`."""

    exit_codes: frozenset[int | None] = frozenset()

    def __init__(self, decoded: DecodedBatches, orders: BatchSampler) -> None:
        self._batches = (decoded[order] for order in orders)

    def take(self) -> DecodedBatch:
        """The next batch."""
        return next(self._batches)

    def close(self) -> None:
        """There is nobody to end."""
        self._batches.close()
