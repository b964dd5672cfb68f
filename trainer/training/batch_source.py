"""Training batches of a run: how an epoch is divided into steps, and how its images are weighted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config.schema import Config
from trainer.data.batches.batches import Batch, Batches, BatchPlan
from trainer.data.batches.lost_images import LostImages
from trainer.data.batches.resident import ResidentBatches
from trainer.data.batches.stream import StreamedBatches
from trainer.data.dataset import ResidentSplit, Split
from trainer.data.image_folder import FolderSplit
from trainer.errors import ConfigError
from trainer.training.distributed import Peers


class BatchSource:
    """Source of a run's training batches, for this process."""

    def __init__(
        self, config: Config, split: Split, device: torch.device, warn: Callable[[str], None], peers: Peers | None
    ) -> None:
        self.split = split
        self.plan = plan_of(config, split.labels_N, peers)
        self.device = device
        self.lost = LostImages(warn)  # images that could not be read in this session
        # Loss weight of each class's images, on the device; None for equal weights.
        self.weights_K = loss_weights(config, split.labels_N, device)
        self._epochs = config.train.epochs
        self._warn = warn

    def batches(self, workers: int) -> Batches:
        """Batches of the kind that fits the split."""
        if isinstance(self.split, FolderSplit):
            return StreamedBatches(
                self.split, self.plan, self.device,
                workers=workers, epochs=self._epochs, warn=self._warn, lost=self.lost,
            )  # fmt: skip
        assert isinstance(self.split, ResidentSplit)
        return ResidentBatches(self.split, self.plan, self.device)

    def trial_batch(self) -> Batch:
        """The first batch of the run, decoded here: a trial starts no worker processes."""
        return next(batch for batch in self.batches(workers=0).epoch(0, 0) if batch is not None)


def feature_batches(plan: BatchPlan, labels_N: Tensor, device: torch.device) -> ResidentBatches:
    """Batches without pixels: the step looks features up by the images' indices."""
    no_pixels = torch.empty(len(labels_N), 0, 0, 3, dtype=torch.uint8, device=device)
    return ResidentBatches(ResidentSplit(no_pixels, labels_N), plan, device)


def plan_of(config: Config, labels_N: Tensor, peers: Peers | None = None) -> BatchPlan:
    """Divide an epoch into steps, and a step among processes; ConfigError when a batch cannot be divided equally."""
    rank, world = (0, 1) if peers is None else (peers.rank, peers.world)
    parts = world * config.train.grad_accum_steps
    if config.data.batch_size % parts or config.data.batch_size < 2 * parts:
        raise ConfigError(
            f"data.batch_size {config.data.batch_size} is that of all {world} processes and must be divisible by {parts}, "
            f"with 2 images or more in each part"
        )
    return BatchPlan(
        num_images=len(labels_N),
        batch_size=config.data.batch_size,
        drop_last=config.data.drop_last or world > 1,  # a smaller batch may not divide equally
        rank=rank,
        world=world,
        smallest=2 * config.train.grad_accum_steps,
        seed=config.run.seed,
        balanced=labels_N if config.data.balance == "sampler" else None,
    )


def loss_weights(config: Config, labels_N: Tensor, device: torch.device) -> Tensor | None:
    """Loss weights of classes, larger for rare ones, 1 on average over all images: float32 (K,); None where all are equal."""
    if config.data.balance != "loss":
        return None
    counts_K = torch.bincount(labels_N).float()
    return (len(labels_N) / (len(counts_K) * counts_K)).to(device)
