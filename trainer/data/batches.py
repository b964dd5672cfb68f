"""Which images make which batch, and how they come to the device: gathered from memory, or streamed by workers.

Both ways give the same batches in the same order: the order is `draws.epoch_order`, and a batch is known by its epoch and
its first position, so that a resume starts in the middle of an epoch without replaying anything.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.data.dataset import ResidentSplit, Split
from trainer.data.draws import epoch_order
from trainer.data.image_folder import FolderSplit
from trainer.errors import DataError


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a training split is cut into batches.

    Attributes:
        num_images: In the split.
        batch_size: Images a step.
        drop_last: Leave out a smaller last batch. One too small for batch norm is left out in any case.
        smallest: Fewest images that a step can use.
        seed: Of the run.
    """

    num_images: int
    batch_size: int
    drop_last: bool
    smallest: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        whole, rest = divmod(self.num_images, self.batch_size)
        return whole + int(not self.drop_last and rest >= self.smallest)

    def rows_of(self, order: Tensor, step: int) -> tuple[int, Tensor]:
        """First position and sample numbers of an epoch's step, counted from 0."""
        start = step * self.batch_size
        return start, order[start : start + self.batch_size]


class Batches(Protocol):
    """A source of training batches."""

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch, from a step on (both counted from 0)."""

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
        order = epoch_order(self._plan.num_images, seed=self._plan.seed, epoch=epoch).to(self._pixels.device)
        for step in range(first_step, self._plan.steps_per_epoch):
            start, ids = self._plan.rows_of(order, step)
            positions = torch.arange(start, start + len(ids), device=self._device)
            if self._pixels.device == self._device:
                yield Batch(self._pixels, ids, ids, positions, self._labels[ids])
                continue
            pixels = self._pixels[ids].to(self._device, non_blocking=True)
            rows = torch.arange(len(ids), device=self._device)
            yield Batch(pixels, rows, ids.to(self._device), positions, self._labels[ids].to(self._device))

    def close(self) -> None:
        """Nothing to end."""


class StreamedBatches:
    """Batches decoded by spawned worker processes, for folders that do not fit in memory.

    The workers live from the first batch to `close`; they are never forked, since a fork would copy the dashboard's
    terminal state and CUDA's.
    """

    def __init__(self, split: FolderSplit, plan: Plan, device: torch.device, *, workers: int, epochs: int) -> None:
        self._split = split
        self._plan = plan
        self._device = device
        self._workers = workers
        self._epochs = epochs
        self._next: tuple[int, int] | None = None
        self._stream: Iterator[tuple[Tensor, Tensor]] | None = None

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch, from a step on; restarts the workers only when it is not the one that comes next."""
        if self._next != (epoch, first_step) or self._stream is None:
            self.close()
            self._stream = self._start(epoch, first_step)
        for step in range(first_step, self._plan.steps_per_epoch):
            pixels, ids = _next(self._stream)
            self._next = (epoch, step + 1) if step + 1 < self._plan.steps_per_epoch else (epoch + 1, 0)
            start = step * self._plan.batch_size
            yield Batch(
                pixels.to(self._device, non_blocking=True),
                torch.arange(len(ids), device=self._device),
                ids.to(self._device),
                torch.arange(start, start + len(ids), device=self._device),
                self._split.labels_N[ids].to(self._device),
            )

    def close(self) -> None:
        """End the workers."""
        stream, self._stream, self._next = self._stream, None, None
        # Not left to the garbage collector: an exception on its way up still holds the iterator, and workers that ignore
        # TERM would keep the interpreter from ending. torch has no public name for this.
        shut_down = getattr(stream, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()

    def _start(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            _Decoded(self._split),
            # Made while it is read: written out, the rows of a long run would fill the memory.
            batch_sampler=_Rows(self._plan, range(epoch, self._epochs), first_step),
            num_workers=self._workers,
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=_leave_signals_to_the_trainer if self._workers else None,
            # An own generator: without one the loader draws its base seed from torch's global state.
            generator=torch.Generator().manual_seed(self._plan.seed),
            pin_memory=self._device.type == "cuda",
        )
        return iter(loader)


def _next(stream: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    try:
        return next(stream)
    except DataError as error:
        # A worker's error comes with the worker's whole traceback as its text.
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error


@dataclass(frozen=True)
class _Rows:
    """The rows of each batch of the epochs that are left, in order."""

    plan: Plan
    epochs: range
    first_step: int

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first_step
        for epoch in self.epochs:
            order = epoch_order(self.plan.num_images, seed=self.plan.seed, epoch=epoch)
            for step in range(first, self.plan.steps_per_epoch):
                yield self.plan.rows_of(order, step)[1].tolist()
            first = 0


class _Decoded(Dataset[tuple[Tensor, int]]):
    def __init__(self, split: FolderSplit) -> None:
        self._split = split

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self._split.decode(row)), row

    def __len__(self) -> int:
        return len(self._split)


def _leave_signals_to_the_trainer(_worker: int) -> None:
    # Ctrl-C and a scheduler's TERM reach the whole process group; the trainer must still get its batches to save.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def build_batches(split: Split, plan: Plan, device: torch.device, *, workers: int, epochs: int) -> Batches:
    """The right source for a split."""
    if isinstance(split, FolderSplit):
        return StreamedBatches(split, plan, device, workers=workers, epochs=epochs)
    assert isinstance(split, ResidentSplit)
    return ResidentBatches(split, plan, device)


def evaluation_batches(split: Split, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a split in order: (uint8 pixels NHWC, int64 labels N) on the device."""
    for start in range(0, len(split), batch_size):
        stop = min(start + batch_size, len(split))
        # A slice of a tensor copies nothing; rows by number would.
        pixels = split.pixels_NHWC[start:stop] if isinstance(split, ResidentSplit) else split.pixels(range(start, stop))
        yield pixels.to(device, non_blocking=True), split.labels_N[start:stop].to(device, non_blocking=True)
