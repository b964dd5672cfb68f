"""Which images make which batch, and batches gathered from memory; `trainer.data.batches.stream` has those that workers decode.

Both ways give the same batches in the same order: the order is `draws.epoch_order`, and a batch is known by its epoch and
its first position, so that a resume starts in the middle of an epoch without replaying anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import ResidentSplit, Split
from trainer.data.draws import balanced_order, epoch_order
from trainer.data.image_folder import FolderSplit


@dataclass(frozen=True)
class Batch:
    """The material of one optimizer step, not yet augmented. All tensors are on the training device.

    Attributes:
        pixels_MHWC: uint8, the whole split or this batch's images.
        rows_N: int64, the rows of `pixels_MHWC` that make the batch.
        sample_ids_N: int64, numbers in the training split.
        positions_N: int64, positions in the epoch's order.
        labels_N: int64.
    """

    pixels_MHWC: Tensor
    rows_N: Tensor
    sample_ids_N: Tensor
    positions_N: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.rows_N)

    def micro_batches(self, count: int) -> list[Batch]:
        """Split for gradient accumulation, as equal as can be."""
        if count == 1:
            return [self]
        parts = zip(
            self.rows_N.tensor_split(count), self.sample_ids_N.tensor_split(count),
            self.positions_N.tensor_split(count), self.labels_N.tensor_split(count), strict=True,
        )  # fmt: skip
        return [Batch(self.pixels_MHWC, *part) for part in parts]

    def rolled(self) -> Batch:
        """The same images, each in the place of the one after it."""
        parts = (self.rows_N, self.sample_ids_N, self.positions_N, self.labels_N)
        return Batch(self.pixels_MHWC, *(part.roll(1) for part in parts))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a training split is cut into batches.

    Attributes:
        num_images: In the split.
        batch_size: Images a step.
        drop_last: Leave out a smaller last batch. One too small for batch norm is left out in any case.
        smallest: Fewest images that a step can use.
        seed: Of the run.
        balanced: Labels of all images, int64 on the CPU, when each class is to be shown equally often; None for every image once.
        rank: Which part of each batch is this process's.
        world: Processes that train together, each of which takes as many images of a batch.
    """

    num_images: int
    batch_size: int
    drop_last: bool
    smallest: int
    seed: int
    balanced: Tensor | None = None
    rank: int = 0
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        whole, rest = divmod(self.num_images, self.batch_size)
        return whole + int(not self.drop_last and rest >= self.smallest)

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch, in the order in which they are shown: int64 (num_images,) on the CPU."""
        if self.balanced is not None:
            return balanced_order(self.balanced, seed=self.seed, epoch=epoch)
        return epoch_order(self.num_images, seed=self.seed, epoch=epoch)

    def rows_of(self, order: Tensor, step: int) -> tuple[int, Tensor]:
        """First position and sample numbers of an epoch's step, counted from 0: this process's part of them."""
        start = self.first_position(step)
        return start, order[start : start + self._part_of(step)]

    def first_position(self, step: int) -> int:
        """Where in an epoch's order this process's part of a step begins."""
        return step * self.batch_size + self.rank * self._part_of(step)

    def _part_of(self, step: int) -> int:
        return min(self.batch_size, self.num_images - step * self.batch_size) // self.world


class Batches(Protocol):
    """A source of training batches."""

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch | None]:
        """The batches of an epoch, from a step on (both counted from 0).

        None comes where the next one takes long: whoever waits has time for something else.
        """

    def extend(self, epochs: int) -> None:
        """The run has more epochs than it had. Between two batches only."""

    def close(self) -> None:
        """End helpers."""


class ResidentBatches:
    """Batches as rows of a tensor that stays on the device (or in RAM, when only RAM has room)."""

    def __init__(self, split: ResidentSplit, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._device = device
        self._pixels = split.pixels_NHWC
        self._labels = split.labels_N.to(self._pixels.device)

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch, from a step on."""
        order = self._plan.order(epoch).to(self._pixels.device)
        for step in range(first_step, self._plan.steps_per_epoch):
            start, ids = self._plan.rows_of(order, step)
            positions = torch.arange(start, start + len(ids), device=self._device)
            if self._pixels.device == self._device:
                yield Batch(self._pixels, ids, ids, positions, self._labels[ids])
                continue
            pixels = self._pixels[ids].to(self._device, non_blocking=True)
            rows = torch.arange(len(ids), device=self._device)
            yield Batch(pixels, rows, ids.to(self._device), positions, self._labels[ids].to(self._device))

    def extend(self, epochs: int) -> None:
        """Nothing to do: an epoch is like the other."""

    def close(self) -> None:
        """Nothing to end."""


def evaluation_batches(
    split: Split, batch_size: int, device: torch.device, lost: LostImages
) -> Iterator[tuple[Tensor, Tensor, Sequence[int]]]:
    """All images of a split in order: (uint8 pixels NHWC, int64 labels N) on the device, and which rows of the split they are.

    Args:
        split: Images and labels.
        batch_size: Images at a time.
        device: Where they go.
        lost: Told about images that cannot be read any more; they are missing from their batch.

    Raises:
        DataLostError: When most of a batch cannot be read.
    """
    for start in range(0, len(split), batch_size):
        stop = min(start + batch_size, len(split))
        labels_N = split.labels_N[start:stop]
        rows: Sequence[int] = range(start, stop)
        if isinstance(split, FolderSplit):
            reading = split.read(range(start, stop), threads=None)
            lost.note(reading.lost, stop - start)
            pixels_NHWC, labels_N = reading.pixels_NHWC, labels_N[reading.kept]
            rows = [rows[index] for index in reading.kept]
        else:
            assert isinstance(split, ResidentSplit)
            # A slice of a tensor copies nothing; rows by number would.
            pixels_NHWC = split.pixels_NHWC[start:stop]
        yield pixels_NHWC.to(device, non_blocking=True), labels_N.to(device, non_blocking=True), rows
