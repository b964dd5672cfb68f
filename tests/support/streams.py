"""Streamed batches of a folder, and what they should equal."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from trainer.data.batches.batches import Batch, BatchPlan
from trainer.data.batches.lost_images import LostImages
from trainer.data.batches.resident import ResidentBatches
from trainer.data.batches.stream import StreamedBatches
from trainer.data.dataset import ResidentSplit
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import FolderSplit, PixelStorage, load_image_folder

CPU = torch.device("cpu")
PLAN = BatchPlan(num_images=36, batch_size=8, drop_last=False, smallest=2, seed=3)
WHOLE = BatchPlan(num_images=36, batch_size=36, drop_last=False, smallest=2, seed=3)


class Warnings(list[str]):
    """Collects warnings."""

    def stream(self, split: FolderSplit, plan: BatchPlan = PLAN, workers: int = 1, epochs: int = 3) -> StreamedBatches:
        return StreamedBatches(
            split, plan, CPU, workers=workers, epochs=epochs, warn=self.append, lost=LostImages(self.append)
        )


def train_split(root: Path, keep: PixelStorage = PixelStorage.STREAM) -> Any:
    decoder = Decoder(image_size=8, crop_pct=1.0)
    return load_image_folder(root, decoder=decoder, keep=lambda _: keep, progress=lambda *_: None).splits["train"]


def epoch_of(streamed: StreamedBatches, epoch: int, first_step: int = 0) -> list[Batch]:
    with ThreadPoolExecutor(1) as trainer:
        return trainer.submit(lambda: [b for b in streamed.epoch(epoch, first_step) if b is not None]).result()


def assert_equal_to_memory(root: Path, streamed: StreamedBatches, epochs: int = 3) -> None:
    split = train_split(root, PixelStorage.RESIDENT)
    assert isinstance(split, ResidentSplit)
    from_memory = ResidentBatches(split, PLAN, CPU)
    for epoch in range(epochs):
        for memory, worker in itertools.zip_longest(from_memory.epoch(epoch, 0), epoch_of(streamed, epoch)):
            assert_same(memory, worker)


def assert_same(memory: Batch, worker: Batch) -> None:
    assert torch.equal(memory.pixels_MHWC[memory.rows_N], worker.pixels_MHWC[worker.rows_N])
    for name in ("sample_ids_N", "positions_N", "labels_N"):
        assert torch.equal(getattr(memory, name), getattr(worker, name)), name
