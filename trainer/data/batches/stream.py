"""Batches decoded by spawned worker processes, for folders that do not fit in memory.

A stream can start anywhere, since a batch is identified by its epoch and first position. This also makes the death of a worker
recoverable: the workers are restarted where the last batch ended.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from trainer.data.batches.batches import Batch, Batches, BatchPlan
from trainer.data.batches.lost_images import MIN_TRAINING_IMAGES, LostImages
from trainer.data.batches.upload import Upload
from trainer.data.batches.worker_dataset import DecodedBatch, DecodedBatches, InProcessDecoder, decode_requests
from trainer.data.batches.worker_pool import Workers, cause_of_death, is_timeout, is_worker_death
from trainer.data.image_folder import FolderSplit
from trainer.errors import DataLostError
from trainer.host.stop_signals import ignore_stop_signals

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only asked for its free space
_MORE_SHARED_MEMORY = "; in a container, raise --shm-size"
_BATCHES_AHEAD = 2  # decoded ahead by each worker: DataLoader's own default
_MAX_WORKER_DEATHS = 3  # treated as accidents, with fewer than `_BATCHES_UNTIL_HEALTHY` batches between them
_BATCHES_UNTIL_HEALTHY = 100
_PATIENCE_S = 1  # per wait for a batch; between two waits the trainer handles commands
_LONG_WAIT_S = 30.0  # without a batch before a warning is published: the folder's share may not answer


class StreamedBatches(Batches):
    """Batches decoded by `workers` processes, which live from the first batch to `close`, or by this one when there are 0.

    They are never forked, since a fork would copy the dashboard's terminal state and CUDA's. Iterate on a thread other
    than the main one: there torch raises the death of a worker from a signal handler, at any point.
    """

    def __init__(
        self, split: FolderSplit, plan: BatchPlan, device: torch.device, *,
        workers: int, epochs: int, warn: Callable[[str], None], lost: LostImages,
    ) -> None:  # fmt: skip
        self._split = split
        # Not `commonpath`, which collapses the two slashes of `//share`: the prefix is cut off each path by its length.
        self._prefix = os.path.commonprefix([min(split.paths), max(split.paths)])  # noqa: RUF071
        self._plan = plan
        self._device = device
        self._upload = Upload(device)
        self._number = workers
        self._epochs = epochs
        self._warn = warn
        self._lost = lost
        self._shared = True
        self._deaths = self._since_death = 0
        self._waiting_since_s = 0.0
        self._next: tuple[int, int] | None = None
        self._decoding: Workers[DecodedBatch] | InProcessDecoder | None = None

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch | None]:
        """Yield the batches of an epoch from a step onwards, and None after each second without a batch.

        Restarts the workers only when that batch is not the next one. DataLostError when most of a batch cannot be
        read, or workers die repeatedly.
        """
        if self._next != (epoch, first_step) or self._decoding is None:
            self.close()
            self._shared = self._fits_in_shared_memory()
        for step in range(first_step, self._plan.steps_per_epoch):
            self._waiting_since_s, complained = time.monotonic(), False
            while (delivery := self._take(epoch, step)) is None:
                if not complained and time.monotonic() - self._waiting_since_s > _LONG_WAIT_S:
                    complained = True
                    self._warn(
                        f"no images for {_LONG_WAIT_S:.0f} s: the workers are stuck at or near {self._first_path(epoch, step)}"
                    )
                yield None
            self._next = (epoch, step + 1) if step + 1 < self._plan.steps_per_epoch else (epoch + 1, 0)
            yield self._to_device(delivery, step)

    def extend(self, epochs: int) -> None:
        """Set a larger number of epochs, and restart the workers, since the current ones have fixed orders."""
        self._epochs = epochs
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        decoding, self._decoding, self._next = self._decoding, None, None
        if decoding is not None:
            decoding.close()

    def _take(self, epoch: int, step: int) -> DecodedBatch | None:
        """Batch of a step; None when it is not ready, or when failed workers were stopped and new ones will start with it."""
        try:
            if self._decoding is None:
                self._decoding = self._start(epoch, step)
            delivery = self._decoding.take()
        # If a worker dies after sending a batch, its pixels can no longer be mapped: a connection error.
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            if not self._number:
                raise
            if is_timeout(error):
                return None
            if self._decoding is not None and not is_worker_death(error):
                raise
            self._stop_failed_workers(epoch, step, error)
            return None
        self._since_death += 1
        return delivery

    def _to_device(self, delivery: DecodedBatch, step: int) -> Batch:
        self._lost.note(delivery.lost, len(delivery.rows), least=MIN_TRAINING_IMAGES)
        kept = torch.tensor(delivery.kept)
        ids = torch.tensor(delivery.rows)[kept]
        # An image keeps its position in the order even when images before it are skipped: its draws depend on it.
        positions = self._plan.first_position(step) + kept
        return self._upload(torch.as_tensor(delivery.pixels_NHWC), ids, positions, self._split.labels_N[ids])

    def _start(self, epoch: int, first_step: int) -> Workers[DecodedBatch] | InProcessDecoder:
        # Generated lazily: a full list of the rows of a long run would fill the memory.
        requests = decode_requests(self._split, self._prefix, self._plan, range(epoch, self._epochs), first_step)
        shared = self._shared and self._number > 0
        decoded = DecodedBatches(self._split.decoder, self._prefix, shared=shared, as_array=not self._shared)
        if not self._number:
            return InProcessDecoder(decoded, requests)
        loader: DataLoader[DecodedBatch] = DataLoader(
            decoded,
            batch_size=None,
            sampler=requests,
            collate_fn=_identity_collate,
            num_workers=self._number,
            prefetch_factor=_BATCHES_AHEAD,
            multiprocessing_context="spawn",
            worker_init_fn=_ignore_stop_signals,
            # A separate generator: without one the loader draws its base seed from torch's global state.
            generator=torch.Generator().manual_seed(self._plan.seed),
            pin_memory=self._device.type == "cuda",
            timeout=_PATIENCE_S,
        )
        return Workers(loader)

    def _stop_failed_workers(self, epoch: int, step: int, error: Exception) -> None:
        """Stop the workers, so that new ones start at this batch: fewer, or without shared memory, where that may help.

        DataLostError when they have died too often.
        """
        decoding = self._decoding
        self.close()
        self._waiting_since_s = time.monotonic()  # new workers need time to start
        cause = cause_of_death(() if decoding is None else decoding.exit_codes, error)
        self._deaths = 1 if self._since_death >= _BATCHES_UNTIL_HEALTHY else self._deaths + 1
        self._since_death = 0
        if self._deaths > _MAX_WORKER_DEATHS:
            what = "could not be started" if decoding is None else "died"
            raise DataLostError(
                f"decoding workers {what} {self._deaths} times in a row, at batch {step + 1} of epoch {epoch + 1}: "
                f"{cause.text}. Resume with data.workers=1, or with data.workers=0 to decode in the training process"
            )
        if cause.of_shared_memory:
            self._shared = False
        elif self._deaths > 1:
            # Two deaths are seldom an accident: fewer workers need less memory.
            self._number = max(1, self._number // 2)
        what = "decoding workers could not be started" if decoding is None else "a decoding worker died"
        number = f"{self._number} worker{'' if self._number == 1 else 's'}"
        how = "" if self._shared else f", without shared memory (slower{_MORE_SHARED_MEMORY})"
        self._warn(f"{what}: {cause.text}; no batch is lost; decoding continues with {number}{how}")

    def _first_path(self, epoch: int, step: int) -> str:
        _, rows = self._plan.rows_of(self._plan.order(epoch), step)
        return self._split.paths[int(rows[0])]

    def _fits_in_shared_memory(self) -> bool:
        """Whether the batches in flight fit in shared memory, of which containers often have little."""
        side = self._split.decoder.image_size
        needed = self._number * (_BATCHES_AHEAD + 1) * self._plan.batch_size * side * side * 3
        if not self._number or not _SHARED_MEMORY.is_dir():
            return True
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < needed:
            self._warn(
                f"{_SHARED_MEMORY} has {free / 2**20:,.1f} MiB left and {self._number} workers use up to {needed / 2**20:,.1f}: "
                f"they use pipes instead (slower{_MORE_SHARED_MEMORY})"
            )
        return free >= needed


def _identity_collate(delivery: Any) -> Any:
    return delivery


def _ignore_stop_signals(_worker: int) -> None:
    # Ctrl-C and a scheduler's signals reach the whole process group; the trainer still needs its batches in order to save.
    ignore_stop_signals()
