"""A training run in float64: batches, images, losses, gradients, updates, average of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.reference.training_draws import Draws
from tests.reference.training_images import Quantile, mixed, training_image
from tests.reference.training_network import KEEP, Network, stage_of
from tests.reference.training_rules import averaged, class_weights, clipped, learning_rate, losses, updated
from trainer.config.schema import Config
from trainer.data.draws import Stream, balanced_order, draw, epoch_order


@dataclass(kw_only=True)
class Reference:
    """A reference run.

    Attributes:
        pixels: Training images, uint8 (M, H, W, C).
        mean: Mean of the pixels by channel, 0 to 1.
        std: Standard deviation of the pixels by channel.
        quantile: Quantile of the shares of mixed images.
        weights: Parameters by name.
        statistics: Running means and variances of batch norm by name.
        momenta: Momentum by the name of its parameter.
        average: Moving average of weights and statistics by name; empty if there is none.
        bits: As `Network.bits`.
        edits: Factors of the learning rate with the steps from which they apply.
        step: Number of completed steps.
        loss: Mean loss of the last step.
        top1: Training accuracy of the last step.
        margin: Distance of the nearest jump of a gradient in all steps (`Network.margins`).
        spread: Largest amplification of rounding in all steps (`Network.spreads`).
    """

    config: Config
    pixels: Tensor
    labels: list[int]
    mean: list[float]
    std: list[float]
    quantile: Quantile
    weights: dict[str, Tensor]
    statistics: dict[str, Tensor]
    momenta: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)
    bits: int | None = None
    edits: list[tuple[int, float]] = field(default_factory=list)
    step: int = 0
    loss: float = 0.0
    top1: float = 0.0
    margin: float = torch.inf
    spread: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch; the last one may have fewer images, but at least two in each micro-batch."""
        batch_size, images = self.config.data.batch_size, len(self.labels)
        whole = images // batch_size
        rest = images - whole * batch_size
        takes_rest = not self.config.data.drop_last and rest >= 2 * self.config.train.grad_accum_steps
        return whole + 1 if takes_rest else whole

    def take_step(self, *, frozen: int) -> None:
        """Take the next step of the run, with the first stages frozen."""
        epoch = self.step // self.steps_per_epoch
        first = self.step % self.steps_per_epoch * self.config.data.batch_size
        order = self._order(epoch)[first : first + self.config.data.batch_size]
        positions = list(range(first, first + len(order)))
        for name in self.momenta:
            if stage_of(name) < frozen:
                self.momenta[name] = torch.zeros_like(self.momenta[name])
        gradients = self._gradients(order, positions, epoch, frozen)
        rate = learning_rate(
            self.config, self.step, epochs=self.config.train.epochs, shortest=self.config.train.epochs,
            steps_per_epoch=self.steps_per_epoch, edits=self.edits,
        )  # fmt: skip
        for name, gradient in clipped(gradients, self.config.train.max_grad_norm).items():
            self.weights[name], self.momenta[name] = updated(
                name, self.weights[name], gradient, self.momenta[name], self.config.optim, rate
            )
        self.step += 1
        if self.config.train.ema_decay is not None:
            for name, value in {**self.weights, **self.statistics}.items():
                self.average[name] = averaged(
                    self.average[name], value, decay=self.config.train.ema_decay, step=self.step
                )

    def _order(self, epoch: int) -> list[int]:
        if self.config.data.balance == "sampler":
            return balanced_order(torch.tensor(self.labels), seed=self.config.run.seed, epoch=epoch).tolist()
        return epoch_order(len(self.labels), seed=self.config.run.seed, epoch=epoch).tolist()

    def _gradients(self, order: list[int], positions: list[int], epoch: int, frozen: int) -> dict[str, Tensor]:
        """Gradient of the mean loss over the whole batch; batch norm sees one micro-batch at a time."""
        images, own_shares = self._images(order, positions, epoch)
        labels = [self.labels[row] for row in order]
        partners = [labels[-1], *labels[:-1]]
        parts = torch.arange(len(order)).tensor_split(self.config.train.grad_accum_steps)
        trained = {
            name: weight.clone().requires_grad_(stage_of(name) >= frozen) for name, weight in self.weights.items()
        }
        keep = KEEP ** (1 / len(parts))  # the statistics change as in a step of a single part
        network = Network(trained, self.statistics, self.config.model.stem, frozen, keep, self.bits)
        features = torch.cat([network.features(images[part]) for part in parts])
        logits = network.logits(features, self._dropout(positions, epoch))
        weights, smoothing = class_weights(self.config, self.labels), self.config.train.label_smoothing
        own = losses(logits, labels, smoothing=smoothing, class_weights=weights)
        others = losses(logits, partners, smoothing=smoothing, class_weights=weights)
        loss = (own_shares * own + (1 - own_shares) * others).mean()
        self.loss = float(loss.detach())
        self.top1 = sum(int(row.argmax()) == label for row, label in zip(logits, labels, strict=True)) / len(labels)
        self.margin, self.spread = min(self.margin, *network.margins), max(self.spread, *network.spreads, 0.0)
        names = [name for name, weight in trained.items() if weight.requires_grad]
        gradients = torch.autograd.grad(loss, [trained[name] for name in names])
        return dict(zip(names, gradients, strict=True))

    def _images(self, order: list[int], positions: list[int], epoch: int) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and the shares of their own labels (N,); each is mixed with the previous one."""
        draws = [Draws(self.config.run.seed, epoch, position) for position in positions]
        images = [
            training_image(self.pixels[row], row, drawn, self.config.data, self.mean, self.std)
            for row, drawn in zip(order, draws, strict=True)
        ]
        shares = [1.0] * len(images)
        if self.config.data.mixup or self.config.data.cutmix:
            pairs = zip(images, [images[-1], *images[:-1]], draws, strict=True)
            results = [mixed(image, other, drawn, self.config.data, self.quantile) for image, other, drawn in pairs]
            images, shares = [image for image, _ in results], [share for _, share in results]
        return torch.stack(images), torch.tensor(shares, dtype=torch.float64)

    def _dropout(self, positions: list[int], epoch: int) -> Tensor | None:
        """Mask of the features: dropped ones 0, the others scaled to keep the mean (inverted dropout)."""
        rate, features = self.config.model.dropout, self.weights["fc.weight"].shape[1]
        if not rate:
            return None
        cells = torch.tensor(positions)[:, None] * features + torch.arange(features)
        drawn = draw(cells, seed=self.config.run.seed, epoch=epoch, stream=Stream.DROPOUT) % 2**20
        return torch.where(drawn < round(rate * 2**20), 0.0, 1 / (1 - rate)).double()
