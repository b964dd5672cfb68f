"""The trainer's own parts with a network of few channels, and its state, from which a reference run continues."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import Tensor, nn

from tests.reference.training_step import Reference
from trainer.config.lr_schedule import schedule_of
from trainer.config.schema import Config, ModelConfig
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.augment.mixing import beta_quantiles
from trainer.data.batches.batches import Batch
from trainer.data.batches.resident import ResidentBatches
from trainer.data.dataset import ResidentSplit
from trainer.model.ema import ModelEma
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model
from trainer.training.batch_source import loss_weights, plan_of
from trainer.training.optimizer import build_optimizer, load_momentum_state, momentum_state
from trainer.training.sgd import SGD
from trainer.training.step import TrainStep

WIDTHS = (16, 16, 16, 32)
"""Channels of the stages; 64 to 512 in a ResNet-18. With fewer than oneDNN's block of 8 or 16, backward passes of strided 1x1
convolutions in channels_last write beyond their memory (oneDNN, issue 6035)."""
MEAN, STD = [0.4, 0.5, 0.55], [0.2, 0.25, 0.3]
CPU = torch.device("cpu")


class _NarrowResNet(torchvision.models.ResNet):  # type: ignore[misc]
    """torchvision's ResNet with few channels and one block in the given layers only."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        self._layers = layers
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.fc = nn.Linear(WIDTHS[layers[-1] - 1], 1)

    def _make_layer(self, block: Any, planes: int, *arguments: Any, **named: Any) -> nn.Sequential:
        layer = planes.bit_length() - 6  # 64 channels in the first
        if layer == 1:
            self.inplanes = WIDTHS[0]
        if layer not in self._layers:
            return nn.Sequential()
        stage: nn.Sequential = super()._make_layer(block, WIDTHS[layer - 1], *arguments, **named)
        return stage


def narrow_model(config: ModelConfig, num_classes: int, seed: int, layers: tuple[int, ...] = (1, 2, 3, 4)) -> nn.Module:
    """A narrow network from `build_model` with random weights and a block in the given layers."""
    return copy.deepcopy(_build(config, num_classes, seed, layers))


@functools.cache
def _build(config: ModelConfig, num_classes: int, seed: int, layers: tuple[int, ...]) -> nn.Module:
    with mock.patch("torchvision.models.resnet18", side_effect=lambda weights: _NarrowResNet(layers)):
        model = build_model(config, num_classes, seed)
    stem = model.conv1
    assert isinstance(stem, nn.Conv2d)
    stem.weight = nn.Parameter(stem.weight[: WIDTHS[0]].detach().clone())  # a 3x3 stem always has 64 channels
    stem.out_channels = WIDTHS[0]
    return model


def drawn_quantile(strength: float, share: float) -> float:
    """The quantile of Beta(a, a) that the trainer uses: its table (tested separately), interpolated linearly."""
    table = _table(strength)
    place = share * (len(table) - 1)
    below = min(int(place), len(table) - 2)
    return table[below] + (place - below) * (table[below + 1] - table[below])


@functools.cache
def _table(strength: float) -> list[float]:
    values: list[float] = beta_quantiles(strength).tolist()
    return values


@dataclass(frozen=True)
class State:
    """A copy of the trainer's state between two steps, float64 by name.

    Attributes:
        weights: Parameters.
        statistics: Running means and variances.
        momenta: Momentum of each parameter that has one; zeros while it is frozen.
        average: Moving average of weights and statistics; empty if there is none.
    """

    weights: dict[str, Tensor]
    statistics: dict[str, Tensor]
    momenta: dict[str, Tensor]
    average: dict[str, Tensor]

    @classmethod
    def of(cls, config: Config, model: nn.Module, optimizer: SGD, ema: ModelEma | None) -> State:
        """The state of these parts."""
        weights, kept = _doubled(dict(model.named_parameters())), _doubled(momentum_state(model, optimizer))
        with_momentum = {
            name
            for name, weight in weights.items()
            if config.optim.momentum or (config.optim.name == "muon" and weight.ndim == 4)
        }
        assert kept.keys() <= with_momentum, "an unused momentum"
        return cls(
            weights,
            _doubled(dict(model.named_buffers())),
            {name: kept.get(name, torch.zeros_like(weights[name])) for name in with_momentum},
            {} if ema is None else _doubled(dict(ema.model.state_dict())),
        )

    def reference(
        self, config: Config, pixels: Tensor, labels: list[int], *, step: int, bits: int | None = None,
        mean: list[float] = MEAN, std: list[float] = STD,
    ) -> Reference:  # fmt: skip
        """A reference run that continues from this state at a step."""
        momenta = {name: torch.zeros_like(weight) for name, weight in self.weights.items()} | self.momenta
        return Reference(
            config=config, pixels=pixels, labels=labels, mean=mean, std=std, quantile=drawn_quantile, weights=dict(self.weights),
            statistics=dict(self.statistics), momenta=momenta, average=dict(self.average), bits=bits, step=step,
        )  # fmt: skip


def _doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in float64, without batch norm's counters."""
    return {name: tensor.detach().double().clone() for name, tensor in tensors.items() if tensor.is_floating_point()}


class Trained:
    """The trainer's step, optimizer, average and batches, with a narrow network of random state."""

    def __init__(
        self, config: Config, pixels: Tensor, labels: list[int], numerics: Numerics, layers: tuple[int, ...]
    ) -> None:
        labels_N, seed = torch.tensor(labels), config.run.seed
        self.config = config
        self.model = numerics.apply_to(narrow_model(config.model, max(labels) + 1, seed, layers))
        shake(self.model, seed)
        self.optimizer = build_optimizer(self.model, config.optim, precision=numerics.precision)
        momenta = {name: weight.detach() * 0.01 for name, weight in self.model.named_parameters()}
        load_momentum_state(self.model, self.optimizer, momenta)
        decay = config.train.ema_decay
        self.ema = None if decay is None else ModelEma(self.model, decay)
        plan = plan_of(config, labels_N)
        self.batches = ResidentBatches(ResidentSplit(pixels, labels_N), plan, CPU)
        self.schedule = schedule_of(config, steps_per_epoch=plan.steps_per_epoch)
        augment = Augment(config=config.data, normalize=Normalize.of(MEAN, STD, CPU), seed=seed)
        weights_K = loss_weights(config, labels_N, CPU)
        self.train_step = TrainStep(self.model, self.optimizer, augment, config, numerics, class_weights_K=weights_K)
        self.metrics = torch.zeros(3)

    def take_step(self, step: int, *, frozen: int) -> None:
        """Take a step of the run, counted from 0, as in the loop."""
        epoch, within = divmod(step, self.schedule.steps_per_epoch)
        self.train_step.prepare(frozen)
        batch = next(iter(self.batches.epoch(epoch, within)))
        assert isinstance(batch, Batch)
        self.train_step(batch, epoch=epoch, lr=self.schedule.at(step), metrics_3=self.metrics)
        if self.ema is not None:
            self.ema.update(step + 1)

    def state(self) -> State:
        """A copy of the state."""
        return State.of(self.config, self.model, self.optimizer, self.ema)


def shake(model: nn.Module, seed: int) -> None:
    """Randomise all vectors of a model, so that none is 0 or 1 throughout."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1:
                middle = 1.0 if name.endswith(("weight", "var")) else 0.0
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + middle - 0.5)
