"""Requests for batches of images and their decoding, in a worker process or in this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.batches.batches import BatchPlan
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import FolderSplit, read_images


class DecodedBatch(NamedTuple):
    """Result of a worker for the requested rows."""

    pixels_NHWC: Tensor | NDArray[np.uint8]  # readable images; arrays go through a pipe, tensors through shared memory
    rows: list[int]
    kept: list[int]  # indices in `rows` of the images that could be read
    lost: list[tuple[str, str]]  # path and reason of the others


class DecodeRequest(NamedTuple):
    """Message to a worker: rows of images, and their paths without the common prefix (`suffixes`)."""

    rows: list[int]
    suffixes: list[str]


def decode_requests(
    split: FolderSplit, prefix: str, plan: BatchPlan, epochs: range, first_step: int
) -> Iterator[DecodeRequest]:
    """Yield the requests for the batches of the remaining epochs, from `first_step` of the first of these.

    The common `prefix` of all paths is not sent with each of them.
    """
    for epoch in epochs:
        order = plan.order(epoch)
        for step in range(first_step, plan.steps_per_epoch):
            rows = plan.rows_of(order, step)[1].tolist()
            yield DecodeRequest(rows, [split.paths[row][len(prefix) :] for row in rows])
        first_step = 0


class DecodedBatches(Dataset[DecodedBatch]):
    """Dataset over a folder's images whose items are whole batches.

    With `shared`, another process can map the pixels; with `as_array` they go through a pipe: torch shares tensors.

    It holds no list of the images, since what a worker is started with must be small: it is written to a pipe that the
    worker reads seconds later, and if the worker dies before that, a writer of more than the pipe holds would block forever.
    """

    def __init__(self, decoder: Decoder, prefix: str, *, shared: bool, as_array: bool) -> None:
        self._decoder = decoder
        self._prefix = prefix
        self._shared = shared
        self._as_array = as_array

    def __getitem__(self, request: DecodeRequest) -> DecodedBatch:
        paths = [self._prefix + suffix for suffix in request.suffixes]
        reading = read_images(self._decoder, paths, shared=self._shared)
        pixels = reading.pixels_NHWC.numpy() if self._as_array else reading.pixels_NHWC
        return DecodedBatch(pixels, request.rows, reading.kept, reading.lost)


class InProcessDecoder:
    """Decodes on request in the trainer itself: `data.workers=0`."""

    exit_codes: frozenset[int | None] = frozenset()

    def __init__(self, decoded: DecodedBatches, requests: Iterator[DecodeRequest]) -> None:
        self._batches = (decoded[request] for request in requests)

    def take(self) -> DecodedBatch:
        """The next batch."""
        return next(self._batches)

    def close(self) -> None:
        """Nothing to stop."""
        self._batches.close()
