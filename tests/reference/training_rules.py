"""The rules of a training run as formulas: loss, learning rate, clipping, updates, average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.reference.training_network import stage_of
from trainer.config.schema import Config, OptimConfig


def losses(logits_NK: Tensor, labels: Sequence[int], *, smoothing: float, class_weights: Sequence[float]) -> Tensor:
    """Weighted cross-entropy of each image against a smoothed label: float64 (N,).

    Source of label smoothing: Szegedy et al., arXiv:1512.00567, section 7.
    """
    number, classes = logits_NK.shape
    log_probabilities = logits_NK - logits_NK.exp().sum(1, keepdim=True).log()
    wanted = torch.full((number, classes), smoothing / classes, dtype=torch.float64)
    for image, label in enumerate(labels):
        wanted[image, label] += 1 - smoothing
    weights = torch.tensor([class_weights[label] for label in labels], dtype=torch.float64)
    return -weights * (wanted * log_probabilities).sum(1)


def class_weights(config: Config, labels: Sequence[int]) -> list[float]:
    """Weight of each class in the loss: inverse to its number of images, 1 on average over all images."""
    classes = max(labels) + 1
    if config.data.balance != "loss":
        return [1.0] * classes
    return [len(labels) / (classes * labels.count(label)) for label in range(classes)]


def learning_rate(
    config: Config, step: int, *, epochs: int, shortest: int, steps_per_epoch: int, edits: Sequence[tuple[int, float]]
) -> float:
    """Learning rate of a step, counted from 0.

    A linear warm-up, then a straight line, half a cosine (arXiv:1608.03983, equation 5), stairs, or a constant; edits multiply.

    Args:
        config: Peak rate and shape.
        step: Step of the run.
        epochs: Length of the current plan.
        shortest: Length of the shortest plan of the run, of which the warm-up is a share.
        steps_per_epoch: Steps per epoch.
        edits: Factors of the rate with the steps from which they apply.
    """
    shape, epoch = config.schedule, step // steps_per_epoch
    now, per_epoch = (epoch, 1) if shape.unit == "epoch" else (step, steps_per_epoch)
    warmup, end = shape.warmup * shortest * per_epoch, epochs * per_epoch
    if now < warmup:
        factor = (shape.warmup_start * (warmup - now) + now) / warmup
    elif shape.name == "linear":
        factor = ((end - now) + shape.end * (now - warmup)) / (end - warmup)
    elif shape.name == "cosine":
        factor = shape.end + (1 - shape.end) * math.cos(math.pi / 2 * (now - warmup) / (end - warmup)) ** 2
    else:
        factor = math.prod(shape.gamma for milestone in shape.milestones if milestone <= epoch)
    return config.optim.lr * factor * math.prod(edit for start, edit in edits if start <= step)


def clipped(gradients: dict[str, Tensor], largest: float | None) -> dict[str, Tensor]:
    """Gradients scaled down together to an L2 norm of `largest`; torch adds 1e-6 to the norm."""
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    factor = 1.0 if largest is None else min(1.0, largest / (norm + 1e-6))
    return {name: gradient * factor for name, gradient in gradients.items()}


def updated(
    name: str, weight: Tensor, gradient: Tensor, momentum: Tensor, config: OptimConfig, rate: float
) -> tuple[Tensor, Tensor]:
    """A parameter and its momentum after one update, with a clipped gradient and the classifier's learning rate."""
    rate = rate * config.layer_decay ** (5 - stage_of(name))
    if config.name == "muon" and weight.ndim == 4:
        return _rotated(weight, gradient, momentum, config, rate * config.kernel_lr / config.lr)
    if config.decay_bn_bias or weight.ndim > 1:
        gradient = gradient + config.weight_decay * weight
    momentum = config.momentum * momentum + gradient
    update = gradient + config.momentum * momentum if config.nesterov else momentum
    return weight - rate * update, momentum


def _rotated(
    kernel: Tensor, gradient: Tensor, momentum: Tensor, config: OptimConfig, angle: float
) -> tuple[Tensor, Tensor]:
    """Muon: a step of a share `angle` of the kernel's norm along an orthogonal matrix, which keeps the norm.

    Sources: K. Jordan et al., Muon (2024); K. Jordan, arXiv:2404.00498.
    """
    momentum = config.kernel_momentum * momentum + gradient
    update = gradient + config.kernel_momentum * momentum if config.nesterov else momentum
    direction = orthogonal(update)
    moved = kernel - angle * kernel.norm() * direction / direction.norm()
    return moved * kernel.norm() / moved.norm(), momentum


def orthogonal(update_KCHW: Tensor) -> Tensor:
    """Three Newton-Schulz iterations, which change only the singular values."""
    matrix = update_KCHW.flatten(1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    result: Tensor = left @ torch.diag(values) @ right
    return result.reshape(update_KCHW.shape)


def averaged(average: Tensor, value: Tensor, *, decay: float, step: int) -> Tensor:
    """The moving average after a step, counted from 1, with the lower initial decay of TensorFlow's ExponentialMovingAverage."""
    keep = min(decay, (1 + step) / (10 + step))
    return keep * average + (1 - keep) * value
