"""Division of images into batches, and batches from memory; those decoded by workers are in `trainer.data.batches.stream`.

Both sources give the same batches in the same order: the order is `draws.epoch_order`, and a batch is identified by its epoch and
first position, so that a resume starts in the middle of an epoch without replaying anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import ResidentSplit, Split
from trainer.data.draws import balanced_order, epoch_order
from trainer.data.image_folder import FolderSplit


@dataclass(frozen=True)
class Batch:
    """Images of one optimizer step, not yet augmented. All tensors are on the training device."""

    pixels_MHWC: Tensor  # uint8, the whole split or this batch's images
    rows_N: Tensor  # int64, the rows of `pixels_MHWC` that make the batch
    sample_ids_N: Tensor  # int64, image numbers in the training split
    positions_N: Tensor  # int64, positions in the epoch's order
    labels_N: Tensor
    # Whether `pixels_MHWC` is the whole split, which stays where it is.
    fixed_pixels: bool = field(default=False, kw_only=True)

    def __len__(self) -> int:
        return len(self.rows_N)

    @property
    def _per_image(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.rows_N, self.sample_ids_N, self.positions_N, self.labels_N

    def micro_batches(self, count: int) -> list[Batch]:
        """Split for gradient accumulation, as evenly as possible."""
        if count == 1:
            return [self]
        parts = zip(*(values_N.tensor_split(count) for values_N in self._per_image), strict=True)
        return [Batch(self.pixels_MHWC, *part, fixed_pixels=self.fixed_pixels) for part in parts]

    def shifted_by_one(self) -> Batch:
        """The same images, each at the position of the one after it."""
        return Batch(
            self.pixels_MHWC, *(values_N.roll(1) for values_N in self._per_image), fixed_pixels=self.fixed_pixels
        )

    def buffers(self) -> Batch:
        """A copy that `fill` can change; fixed pixels are not copied."""
        pixels_MHWC = self.pixels_MHWC if self.fixed_pixels else self.pixels_MHWC.clone()
        return Batch(pixels_MHWC, *(values_N.clone() for values_N in self._per_image), fixed_pixels=self.fixed_pixels)

    def fill(self, other: Batch) -> None:
        """Copy another batch of equal shapes into these tensors."""
        torch._foreach_copy_(self._per_image, other._per_image)
        if not self.fixed_pixels:
            self.pixels_MHWC.copy_(other.pixels_MHWC)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Division of a training split into batches."""

    num_images: int
    batch_size: int  # images per step
    drop_last: bool  # whether to drop a smaller last batch; one below `smallest` is dropped in any case
    smallest: int  # smallest number of images that a step can use: batch norm needs two in each micro-batch
    seed: int
    balanced: Tensor | None = None  # int64 labels on the CPU to show classes equally often; None for each image once
    rank: int = 0  # index of this process, which selects its part of each batch
    world: int = 1  # number of processes that train together, each with an equal part of a batch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        whole, rest = divmod(self.num_images, self.batch_size)
        return whole + int(not self.drop_last and rest >= self.smallest)

    def order(self, epoch: int) -> Tensor:
        """Images of an epoch in training order: int64 (num_images,) on the CPU."""
        if self.balanced is not None:
            return balanced_order(self.balanced, seed=self.seed, epoch=epoch)
        return epoch_order(self.num_images, seed=self.seed, epoch=epoch)

    def rows_of(self, order: Tensor, step: int) -> tuple[int, Tensor]:
        """First position and sample numbers of this process's part of a step, counted from 0 within the epoch."""
        start = self.first_position(step)
        return start, order[start : start + self._part_of(step)]

    def first_position(self, step: int) -> int:
        """Position in an epoch's order at which this process's part of a step begins."""
        return step * self.batch_size + self.rank * self._part_of(step)

    def _part_of(self, step: int) -> int:
        return min(self.batch_size, self.num_images - step * self.batch_size) // self.world


class Batches:
    """A source of training batches. `extend` and `close` do nothing where no helper processes decode ahead."""

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch | None]:
        """Yield the batches of an epoch from a step on, both counted from 0; None while the next one takes long."""
        raise NotImplementedError

    def extend(self, epochs: int) -> None:
        """Set a larger number of epochs. Call only between two batches."""

    def close(self) -> None:
        """Stop helper processes."""


def evaluation_batches(
    split: Split, batch_size: int, device: torch.device, lost: LostImages
) -> Iterator[tuple[Tensor, Tensor, Sequence[int]]]:
    """Yield all images of a split in order: (uint8 pixels NHWC, int64 labels N) on the device, and their rows.

    Images that have become unreadable are missing and go to `lost`; DataLostError when these are most of a batch.
    """
    for start in range(0, len(split), batch_size):
        stop = min(start + batch_size, len(split))
        rows: Sequence[int] = range(start, stop)
        labels_N = split.labels_N[start:stop]
        if isinstance(split, FolderSplit):
            pixels_NHWC, kept, unreadable = split.read(rows, threads=None)
            lost.note(unreadable, len(rows))
            labels_N, rows = labels_N[kept], [rows[index] for index in kept]
        else:
            assert isinstance(split, ResidentSplit)
            # Slicing a tensor copies nothing; indexing with row numbers would.
            pixels_NHWC = split.pixels_NHWC[start:stop]
        yield pixels_NHWC.to(device, non_blocking=True), labels_N.to(device, non_blocking=True), rows
