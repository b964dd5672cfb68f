"""Batches from worker processes are the same as from memory, whatever happens to the workers.

Batches are taken on a thread, as by the trainer: on the main thread torch reports a dead worker from a signal handler.
"""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import FolderMaker
from tests.support.streams import CPU, PLAN, Warnings, assert_equal_to_memory, assert_same, epoch_of, train_split
from tests.support.unreliable_decoders import BlockingDecoder, DeadlyDecoder
from trainer.data.batches import stream
from trainer.data.batches.batches import Batch, BatchPlan
from trainer.data.batches.resident import ResidentBatches
from trainer.data.batches.worker_pool import WorkerWatch
from trainer.data.dataset import ResidentSplit
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import FolderSplit, PixelStorage, load_image_folder
from trainer.errors import DataLostError


def deadly(root: Path, *, times: int, how: int = signal.SIGKILL) -> FolderSplit:
    split = train_split(root)
    assert isinstance(split, FolderSplit)
    (root / "tally").mkdir()
    split.decoder = DeadlyDecoder(
        image_size=8, crop_pct=1.0, name="red/003.png", times=times, how=how, tally=root / "tally"
    )
    return split


def test_streamed_batches_equal_those_from_memory(make_folder: FolderMaker) -> None:
    root, warnings = make_folder(), Warnings()
    streamed = warnings.stream(train_split(root), workers=2)
    assert_equal_to_memory(root, streamed)
    streamed.close()
    assert warnings == []


def test_a_stream_starts_in_the_middle_of_an_epoch(make_folder: FolderMaker) -> None:
    root = make_folder()
    memory = ResidentBatches(train_split(root, PixelStorage.RESIDENT), PLAN, CPU)
    streamed = Warnings().stream(train_split(root))
    for batch, other in itertools.zip_longest(memory.epoch(1, 3), epoch_of(streamed, 1, 3)):
        assert_same(batch, other)
    streamed.close()


def test_killed_workers_lose_no_batch_and_a_second_death_reduces_their_number(make_folder: FolderMaker) -> None:
    root, warnings = make_folder(), Warnings()
    streamed = warnings.stream(deadly(root, times=2), workers=2)
    assert_equal_to_memory(root, streamed)
    streamed.close()
    died = (
        "a decoding worker died: killed (by the system, if memory ran out); no batch is lost; decoding continues with"
    )
    assert warnings == [f"{died} 2 workers", f"{died} 1 worker"]


def test_an_image_that_kills_every_worker_is_an_error_with_advice(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_MAX_WORKER_DEATHS", 1)
    root, warnings = make_folder(), Warnings()
    streamed = warnings.stream(deadly(root, times=99, how=signal.SIGSEGV), workers=1)
    with pytest.raises(
        DataLostError, match=r"died 2 times in a row, at batch \d of epoch 1.*Resume with data.workers=1"
    ):
        epoch_of(streamed, 0)
    assert len(warnings) == 1
    streamed.close()
    assert multiprocessing.active_children() == [], "a remaining worker would keep the program from ending"


def test_streaming_continues_without_shared_memory_after_a_bus_error(make_folder: FolderMaker) -> None:
    root, warnings = make_folder(), Warnings()
    streamed = warnings.stream(deadly(root, times=1, how=signal.SIGBUS))
    assert_equal_to_memory(root, streamed, epochs=1)
    streamed.close()
    (text,) = warnings
    assert (
        "no room in shared memory (bus error); no batch is lost; decoding continues with 1 worker, without shared memory"
        in text
    )


def test_pipes_replace_too_little_shared_memory(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    root, warnings = make_folder(), Warnings()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**16, 2**16 - 2**10, 2**10))
    streamed = warnings.stream(train_split(root))
    assert_equal_to_memory(root, streamed, epochs=1)
    streamed.close()
    (text,) = warnings
    assert "they use pipes instead" in text
    assert "--shm-size" in text


@pytest.mark.parametrize("shared", [True, False], ids=["shared memory", "pipes"])
def test_workers_killed_while_sending_do_not_block_the_trainer(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    if not shared:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**16, 2**16 - 2**10, 2**10))
    root, warnings = make_folder(), Warnings()
    decoder = Decoder(image_size=128, crop_pct=1.0)  # a batch exceeds a pipe's buffer, so workers block while sending
    data = load_image_folder(root, decoder=decoder, keep=lambda _: PixelStorage.STREAM, progress=lambda *_: None)
    split = data.splits["train"]
    assert isinstance(split, FolderSplit)
    streamed = warnings.stream(split, workers=2)

    def take() -> int:
        taken = 0
        for batch in streamed.epoch(0, 0):
            taken += batch is not None
            if taken == 1 and len(warnings) == (not shared):
                time.sleep(1.0)
                for worker in multiprocessing.active_children():
                    worker.kill()
        return taken

    with ThreadPoolExecutor(1) as trainer:
        assert trainer.submit(take).result(200) == PLAN.steps_per_epoch
    streamed.close()
    assert "killed (by the system, if memory ran out); no batch is lost" in warnings[-1]


def test_waiting_for_a_blocked_worker_is_interruptible(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_LONG_WAIT_S", 0.5)
    root, warnings = make_folder(), Warnings()
    split = train_split(root)
    assert isinstance(split, FolderSplit)
    held = root / "held"
    held.touch()
    split.decoder = BlockingDecoder(image_size=8, crop_pct=1.0, block_file=held)
    streamed = warnings.stream(split)
    waits: list[int] = []

    def take() -> int:
        taken = 0
        for batch in streamed.epoch(0, 0):
            taken += batch is not None
            if batch is None:
                waits.append(taken)
                if len(warnings) == 1:
                    held.unlink(missing_ok=True)
        return taken

    with ThreadPoolExecutor(1) as trainer:
        assert trainer.submit(take).result(200) == PLAN.steps_per_epoch
    streamed.close()
    assert set(waits) == {0}
    assert [text.partition(":")[0] for text in warnings] == ["no images for 0 s"]


def test_failed_starts_of_workers_are_retried_with_fewer(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, warnings = make_folder(), Warnings()
    streamed = warnings.stream(train_split(root), workers=2)
    begin, failures = streamed._start, [0]

    def failing(epoch: int, first_step: int) -> Any:
        failures[0] += 1
        if failures[0] < 3:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return begin(epoch, first_step)

    monkeypatch.setattr(streamed, "_start", failing)
    assert_equal_to_memory(root, streamed, epochs=1)
    streamed.close()
    assert [text.partition("continues with ")[2] for text in warnings] == ["2 workers", "1 worker"]
    assert warnings[0].startswith("decoding workers could not be started: [Errno 11]")


def test_workers_killed_at_their_start_are_replaced_with_any_number_of_images(
    make_folder: FolderMaker,
) -> None:
    """The start message must fit into a pipe: the trainer would wait forever for a dead worker to read it."""
    root, warnings = make_folder(), Warnings()
    split = train_split(root)
    many = FolderSplit(split.paths * 200, split.labels_N.repeat(200), split.decoder)
    assert sum(map(len, many.paths)) > 2**18, "more than a pipe's buffer"
    streamed = warnings.stream(many, BatchPlan(num_images=len(many), batch_size=8, drop_last=False, smallest=2, seed=3))

    def take() -> Batch:
        return next(batch for batch in streamed.epoch(0, 0) if batch is not None)

    with ThreadPoolExecutor(1) as trainer:
        taken = trainer.submit(take)
        while not multiprocessing.active_children():
            time.sleep(0.001)
        multiprocessing.active_children()[0].kill()
        assert len(taken.result(200)) == 8
    streamed.close()
    assert "killed (by the system, if memory ran out); no batch is lost" in warnings[0]


# torch's half-initialised iterator raises when it is deleted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", ["a worker", "their watch"])
def test_no_worker_remains_after_a_failed_start(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    root, warnings, starts = make_folder(), Warnings(), [0]
    start = SpawnProcess.start if what == "a worker" else WorkerWatch.__init__

    def start_or_fail(*arguments: Any) -> None:
        starts[0] += 1
        if starts[0] == (2 if what == "a worker" else 1):
            raise RuntimeError("can't start new thread")
        start(*arguments)

    if what == "a worker":
        monkeypatch.setattr(SpawnProcess, "start", start_or_fail)
    else:
        monkeypatch.setattr(WorkerWatch, "__init__", start_or_fail)
    streamed = warnings.stream(train_split(root), workers=2)
    assert_equal_to_memory(root, streamed, epochs=1)
    assert len(multiprocessing.active_children()) == 2
    streamed.close()
    assert multiprocessing.active_children() == []
    (text,) = warnings
    assert text.startswith("decoding workers could not be started: can't start new thread; no batch is lost")


def test_blocked_workers_are_ended(make_folder: FolderMaker) -> None:
    root = make_folder()
    split, held = train_split(root), root / "held"
    held.touch()
    split.decoder = BlockingDecoder(image_size=8, crop_pct=1.0, block_file=held)
    streamed = Warnings().stream(split)
    with ThreadPoolExecutor(1) as trainer:
        assert trainer.submit(lambda: next(iter(streamed.epoch(0, 0)))).result(200) is None
    begun = time.monotonic()
    streamed.close()
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < 10, "torch alone would wait 10 s for each"


def test_errors_without_workers_are_not_taken_for_a_dead_worker(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    warnings = Warnings()
    streamed = warnings.stream(train_split(make_folder()), workers=0)
    monkeypatch.setattr("trainer.data.batches.worker_dataset.read_images", fail)
    with pytest.raises(MemoryError):
        epoch_of(streamed, 0)
    streamed.close()
    assert warnings == []


def test_the_workers_live_from_epoch_to_epoch(make_folder: FolderMaker) -> None:
    streamed = Warnings().stream(train_split(make_folder()), workers=2)
    workers = []
    for epoch in range(2):
        epoch_of(streamed, epoch)
        workers.append({child.pid for child in multiprocessing.active_children() if isinstance(child, SpawnProcess)})
    streamed.close()
    assert len(workers[0]) == 2
    assert workers[0] == workers[1]


def test_images_on_the_device_are_not_uploaded() -> None:
    """A device without a number is that of a tensor with one: `mps` and `mps:0`."""
    split = ResidentSplit(torch.zeros(6, 2, 2, 3, dtype=torch.uint8), torch.arange(6))
    plan = BatchPlan(num_images=6, batch_size=2, drop_last=True, smallest=2, seed=0)
    (first, *_) = ResidentBatches(split, plan, torch.device("cpu", 0)).epoch(0, 0)
    assert first.fixed_pixels
    assert first.pixels_MHWC is split.pixels_NHWC
