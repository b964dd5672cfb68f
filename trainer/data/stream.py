"""Batches decoded by spawned worker processes, for folders that do not fit in memory.

A stream can be started anywhere, since a batch is known by its epoch and its first position. That is also how the death of a
worker is survived: the workers are started anew where the last batch ended.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.data.batches import Batch, Plan
from trainer.data.draws import epoch_order
from trainer.data.image_folder import FolderSplit
from trainer.data.lost_images import TRAINING_NEEDS, LostImages
from trainer.data.worker_watch import WorkerWatch
from trainer.errors import DataLostError

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only asked for its free space

_MORE_SHARED_MEMORY = "; a container has more with --shm-size"

_BATCHES_AHEAD = 2
"""Batches that each worker decodes ahead: DataLoader's own default."""

_DEATHS = 3
"""Deaths of workers, with fewer than `_WELL_AGAIN` batches between, that are taken for accidents."""

_WELL_AGAIN = 100

_PATIENCE_S = 1
"""A batch that takes longer is waited for in parts, between which the trainer takes commands."""

_LONG_WAIT_S = 30.0
"""A wait of this length is said: the folder's share may not answer."""


class StreamedBatches:
    """Batches decoded by worker processes.

    The workers live from the first batch to `close`; they are never forked, since a fork would copy the dashboard's
    terminal state and CUDA's. Iterate on another thread than the main one: there torch raises the death of a worker from a
    signal handler, anywhere.
    """

    def __init__(
        self, split: FolderSplit, plan: Plan, device: torch.device, *,
        workers: int, epochs: int, warn: Callable[[str], None], lost: LostImages,
    ) -> None:  # fmt: skip
        """Take the parts; nothing is started yet.

        Args:
            split: Images.
            plan: How they are cut into batches.
            device: Where the batches go.
            workers: Processes that decode; 0 to decode in this one.
            epochs: The stream ends with this epoch.
            warn: Told about workers that died.
            lost: Told about images that cannot be read any more.
        """
        self._split = split
        self._plan = plan
        self._device = device
        self._workers = workers
        self._epochs = epochs
        self._warn = warn
        self._lost = lost
        self._shared = True
        self._deaths = self._since_death = 0
        self._next: tuple[int, int] | None = None
        self._stream: Iterator[_Delivery] | None = None
        self._watch: WorkerWatch | None = None

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch | None]:
        """The batches of an epoch, from a step on; restarts the workers only when it is not the one that comes next.

        None stands for a second in which none came.

        Raises:
            DataLostError: When most of a batch cannot be read, or when worker after worker dies.
        """
        if self._next != (epoch, first_step) or self._stream is None:
            self.close()
            self._shared = self._room_to_share()
        for step in range(first_step, self._plan.steps_per_epoch):
            asked_s, complained = time.monotonic(), False
            while (delivery := self._take(epoch, step)) is None:
                if not complained and time.monotonic() - asked_s > _LONG_WAIT_S:
                    complained = True
                    self._warn(
                        f"no images for {_LONG_WAIT_S:.0f} s: the workers wait for {self._split.paths[0]} and its like"
                    )
                yield None
            self._next = (epoch, step + 1) if step + 1 < self._plan.steps_per_epoch else (epoch + 1, 0)
            yield self._to_device(delivery, step)

    def close(self) -> None:
        """End the workers."""
        stream, self._stream, self._next = self._stream, None, None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        # Not left to the garbage collector: an exception on its way up still holds the iterator, and workers that ignore
        # TERM would keep the interpreter from ending. torch has no public name for this.
        shut_down = getattr(stream, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        for worker in getattr(stream, "_workers", []):
            if worker.is_alive():
                worker.kill()  # it ignores the TERM that torch has sent

    def _take(self, epoch: int, step: int) -> _Delivery | None:
        """The batch of a step; None when it is not there yet, or when the workers had to be started anew for it."""
        try:
            if self._stream is None:
                self._stream = self._start(epoch, step)
                self._watch = WorkerWatch(self._stream) if self._workers else None
            delivery = next(self._stream)
        # Of a batch whose worker died after it was sent the pixels cannot be mapped any more: an error of the connection.
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            if _is_late(error):
                return None
            if self._stream is not None and not _is_of_a_dead_worker(error):
                raise
            self._give_up_workers(epoch, step, error)
            return None
        self._since_death += 1
        return delivery

    def _to_device(self, delivery: _Delivery, step: int) -> Batch:
        self._lost.note(delivery.lost, len(delivery.rows), least=TRAINING_NEEDS)
        pixels = torch.as_tensor(delivery.pixels_NHWC)
        kept = torch.tensor(delivery.kept)
        ids = torch.tensor(delivery.rows)[kept]
        return Batch(
            pixels.to(self._device, non_blocking=True),
            torch.arange(len(ids), device=self._device),
            ids.to(self._device),
            # An image keeps its place in the order whatever is left out before it: its draws depend on that.
            (step * self._plan.batch_size + kept).to(self._device),
            self._split.labels_N[ids].to(self._device),
        )

    def _start(self, epoch: int, first_step: int) -> Iterator[_Delivery]:
        loader: DataLoader[_Delivery] = DataLoader(
            _Decoded(self._split, shared=self._shared and self._workers > 0, as_array=not self._shared),
            batch_size=None,
            # Made while it is read: written out, the rows of a long run would fill the memory.
            sampler=_Rows(self._plan, range(epoch, self._epochs), first_step),
            collate_fn=_as_it_is,
            num_workers=self._workers,
            prefetch_factor=_BATCHES_AHEAD if self._workers else None,
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=_leave_signals_to_the_trainer if self._workers else None,
            # An own generator: without one the loader draws its base seed from torch's global state.
            generator=torch.Generator().manual_seed(self._plan.seed),
            pin_memory=self._device.type == "cuda",
            timeout=_PATIENCE_S if self._workers else 0,
        )
        return iter(loader)

    def _give_up_workers(self, epoch: int, step: int, error: Exception) -> None:
        """End the workers, so that others are started at this batch; more carefully each time.

        Raises:
            DataLostError: When they have died too often.
        """
        watch = self._watch
        self.close()
        cause = _cause(watch, error)
        self._deaths = 1 if self._since_death >= _WELL_AGAIN else self._deaths + 1
        self._since_death = 0
        if self._deaths > _DEATHS:
            raise DataLostError(
                f"workers that decode images died {self._deaths} times in a row, at batch {step + 1} of epoch {epoch + 1}: "
                f"{cause}. Resume with data.workers=1, or with data.workers=0, which decodes in the trainer itself"
            )
        if cause.of_shared_memory:
            self._shared = False
        elif self._deaths > 1:
            # Twice is seldom an accident: fewer workers need less memory.
            self._workers = max(1, self._workers // 2)
        how = "" if self._shared else f", without shared memory (slower{_MORE_SHARED_MEMORY})"
        self._warn(
            f"a worker that decodes images died: {cause}; no batch is lost, it goes on with {self._workers}{how}"
        )

    def _room_to_share(self) -> bool:
        """Whether the batches under way fit in shared memory, which containers often have little of."""
        side = self._split.decoder.image_size
        needed = self._workers * (_BATCHES_AHEAD + 1) * self._plan.batch_size * side * side * 3
        if not self._workers or not _SHARED_MEMORY.is_dir():
            return True
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < needed:
            self._warn(
                f"{_SHARED_MEMORY} has {free / 2**20:,.1f} MiB left and {self._workers} workers use up to {needed / 2**20:,.1f}: "
                f"they send their batches through pipes (slower{_MORE_SHARED_MEMORY})"
            )
        return free >= needed


def _is_of_a_dead_worker(error: Exception) -> bool:
    # torch raises no type of its own. "Caught ... in DataLoader worker" is a worker's own error, passed on alive; only that it
    # has too little memory is as good as its death.
    text = str(error)
    gone = isinstance(error, (ConnectionError, EOFError, FileNotFoundError, MemoryError))
    died = ("DataLoader worker" in text and "Caught" not in text) or "Pin memory thread exited" in text
    return gone or died or _lacks_shared_memory(text)


def _is_late(error: Exception) -> bool:
    return "DataLoader timed out" in str(error)


def _lacks_shared_memory(text: str) -> bool:
    return "shared memory" in text or "file </torch_" in text


@dataclass(frozen=True)
class _Cause:
    """Why workers died."""

    text: str
    of_shared_memory: bool

    def __str__(self) -> str:
        return self.text


def _cause(watch: WorkerWatch | None, error: Exception) -> _Cause:
    # Outside the main thread torch says no more than "exited unexpectedly"; the exit codes say how.
    codes = set() if watch is None else watch.exit_codes
    if -signal.SIGBUS in codes:
        return _Cause("no room in shared memory (bus error)", True)
    if -signal.SIGKILL in codes:
        return _Cause("killed (by the system, if memory ran out)", False)
    # The last line: above it stands the worker's traceback, if it had the time for one.
    reason = str(error).strip().rpartition("\n")[2][:200] or type(error).__name__
    return _Cause(reason, _lacks_shared_memory(str(error)))


class _Delivery(NamedTuple):
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


class _Decoded(Dataset[_Delivery]):
    """A split whose items are whole batches."""

    def __init__(self, split: FolderSplit, *, shared: bool, as_array: bool) -> None:
        self._split = split
        self._shared = shared
        self._as_array = as_array

    def __getitem__(self, rows: list[int]) -> _Delivery:
        reading = self._split.read(rows, shared=self._shared)
        pixels = reading.pixels_NHWC.numpy() if self._as_array else reading.pixels_NHWC
        return _Delivery(pixels, rows, reading.kept, reading.lost)


def _as_it_is(delivery: Any) -> Any:
    return delivery


def _leave_signals_to_the_trainer(_worker: int) -> None:
    # Ctrl-C and a scheduler's TERM reach the whole process group; the trainer must still get its batches to save.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
