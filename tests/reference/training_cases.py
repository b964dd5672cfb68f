"""Random training configurations that the trainer accepts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config.schema import Config

SIDES = {"cifar": (8, 9), "cifar-maxpool": (13, 16), "imagenet": (21, 24)}
"""Sides of images by stem; the last feature map has at least four pixels, since batch norm amplifies rounding over very few."""
LAYERS = ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4))
"""Layers of a network with a block: two of four suffice, since the others work in the same way."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some steps of a random run.

    Attributes:
        settings: Configuration without defaults.
        layers: Layers of the network with a block.
        classes: Number of classes.
        images: Number of training images.
        stored: Side of the stored images.
        first_step: Steps of the run before the compared ones.
        frozen: Number of frozen stages in each compared step.
    """

    settings: dict[str, dict[str, Any]]
    layers: tuple[int, ...]
    classes: int
    images: int
    stored: int
    first_step: int
    frozen: tuple[int, ...]
    channels_last: bool

    def config(self) -> Config:
        """The validated configuration."""
        return Config.model_validate(self.settings)

    def pixels(self) -> Tensor:
        """Training images: smooth colours with a little noise, uint8 (images, stored, stored, 3)."""
        generator = torch.Generator().manual_seed(self.images)
        colours = torch.rand(self.images, 3, 4, 4, generator=generator) * 220
        smooth = functional.interpolate(colours, (self.stored, self.stored), mode="bilinear").permute(0, 2, 3, 1)
        return (smooth + torch.rand(smooth.shape, generator=generator) * 35).to(torch.uint8)

    def labels(self) -> list[int]:
        """Labels, the last class more often than the others."""
        return [min(index % (2 * self.classes), self.classes - 1) for index in range(self.images)][::-1]


def random_case(random: Random, *, stem: str | None = None, max_steps: int = 3) -> Case:
    """A random configuration with small batches of small images; any stem if `stem` is None."""
    stem = stem or random.choice(list(SIDES))
    side = random.choice(SIDES[stem])
    parts = random.choice([1, 1, 1, 1, 2, 3])
    batch_size = parts * (random.randint(4, 6) if parts == 1 else random.randint(3, 4))
    epochs, whole, rest = random.randint(2, 5), random.randint(1, 3), random.randrange(batch_size)
    steps = min(random.choice([1, 1, 1, 1, 2, 3]), max_steps)
    data = _random_data(random, side)
    settings = {
        "run": {"seed": random.randrange(4)},
        "data": data | {"batch_size": batch_size, "drop_last": random.random() < 0.3},
        "model": {"stem": stem, "dropout": random.choice([0.0, 0.0, 0.25, 0.6])},
        "train": {
            "epochs": epochs,
            "grad_accum_steps": parts,
            "label_smoothing": random.choice([0.0, 0.1, 0.4]),
            "max_grad_norm": random.choice([None, None, 0.1, 1.0, 100.0]),
            "ema_decay": random.choice([None, 0.5, 0.99]),
        },
        "optim": _random_optim(random),
        "schedule": random_schedule(random, epochs),
    }
    return Case(
        settings=settings,
        layers=random.choice(LAYERS),
        classes=random.randint(2, 4),
        images=whole * batch_size + rest,
        stored=side + (random.choice([0, 4]) if "resized_crop" in data else 0),
        first_step=random.randint(0, max(epochs * whole - steps, 0)),
        frozen=tuple(random.choice([0, 0, 0, 1, 2, 3, 4, 5]) for _ in range(min(steps, epochs * whole))),
        channels_last=random.random() < 0.5,
    )


def _random_data(random: Random, side: int) -> dict[str, Any]:
    crop: dict[str, Any] = random.choice(
        [{}, {"crop_pad": random.randint(1, 4)}, {"resized_crop": random.uniform(0.2, 1.0)}]
    )
    return crop | {
        "image_size": side,
        "progressive": random.choice([[], [], [[max(side - 2, 8), 1]]]),
        "flip": random.choice(["none", "random", "alternate"]),
        "pad": random.choice(["reflect", "zero"]),
        "cutout": random.choice([0, 0, 3, 4]),
        "random_erase": random.choice([0.0, 0.0, 0.5, 1.0]),
        "mixup": random.choice([0.0, 0.0, 0.0, 0.5, 1.0]),
        "cutmix": random.choice([0.0, 0.0, 0.0, 0.5, 1.0]),
        "balance": random.choice(["none", "loss", "sampler"]),
    }


def _random_optim(random: Random) -> dict[str, Any]:
    momentum = random.choice([0.0, 0.5, 0.9])
    return {
        "name": random.choice(["sgd", "sgd", "muon"]),
        "lr": random.choice([0.03, 0.1, 0.3]),
        "momentum": momentum,
        "nesterov": momentum > 0 and random.random() < 0.5,
        "kernel_lr": random.choice([0.05, 0.2]),
        "kernel_momentum": random.choice([0.6, 0.9]),
        "weight_decay": random.choice([0.0, 0.0005, 0.05]),
        "decay_bn_bias": random.random() < 0.5,
        "layer_decay": random.choice([1.0, 0.7, 0.3]),
    }


def random_schedule(random: Random, epochs: int) -> dict[str, Any]:
    """A random learning-rate schedule."""
    name = random.choice(["linear", "cosine", "step", "constant"])
    milestones = sorted(random.sample(range(1, epochs + 1), min(random.randint(1, 3), epochs)))
    return {
        "name": name,
        "milestones": milestones if name == "step" else [],
        "gamma": random.choice([0.1, 0.5]),
        "warmup": random.choice([0.0, 0.2, 0.37, 1.0]),
        "warmup_start": random.choice([0.1, 0.5]),
        "end": random.choice([0.0, 0.1]),
        "unit": random.choice(["step", "epoch"]),
    }
