"""Builds a training step from a model: the trainer, further processes, the timing trial and `bench` share it."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.config.schema import Config
from trainer.data.augment.augment import Augment
from trainer.model.numerics import Numerics
from trainer.training.distributed import Peers
from trainer.training.optimizer import build_optimizer
from trainer.training.step import TrainStep


def build_step(
    config: Config, model: nn.Module, augment: Augment, numerics: Numerics,
    *, class_weights_K: Tensor | None = None, micro_batches: int | None = None, peers: Peers | None = None,
) -> TrainStep:  # fmt: skip
    """Build the step of a model, changed in place to the memory format and the convolutions of `numerics`."""
    model = numerics.apply_to(model)
    optimizer = build_optimizer(model, config.optim, precision=numerics.precision)
    return TrainStep(
        model, optimizer, augment, config, numerics,
        class_weights_K=class_weights_K, micro_batches=micro_batches, peers=peers,
    )  # fmt: skip
