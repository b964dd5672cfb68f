"""Takes a step on tensors without values, which refuse operations on tensors of different devices.

    python -m tests.support.null_cuda.devices [KEY=VALUE ...]

Prints JSON: the device of the gradients, and whether each has the memory layout of its weight.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.config.loader import load_config
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.batches.batches import Batch
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model
from trainer.training.optimizer import build_optimizer
from trainer.training.step import TrainStep

GPU = torch.device("cuda", 0)


def moved(model: nn.Module) -> nn.Module:
    """Replace all weights and buffers by ones on the GPU, without values."""
    for module in model.modules():
        for name, weight in [*module._parameters.items()]:
            if weight is not None:
                module._parameters[name] = nn.Parameter(torch.empty_strided(weight.shape, weight.stride(), device=GPU))
        for name, buffer in [*module._buffers.items()]:
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)
    return model


def main(settings: list[str]) -> dict[str, Any]:
    """Take a step of configs/cifar.yaml with these settings, of which the precision must be one."""
    config = load_config("cifar", ["run.cuda_graph=false", *settings]).config
    numerics = Numerics(precision=config.run.precision, channels_last=True, convolution="native")  # type: ignore[arg-type]
    model = numerics.apply_to(build_model(config.model, 10, 0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        optimizer = build_optimizer(moved(model), config.optim, precision=config.run.precision)
        augment = Augment(config=config.data, normalize=Normalize.of([0.5] * 3, [0.25] * 3, GPU), seed=0)
        step = TrainStep(model, optimizer, augment, config, numerics, class_weights_K=torch.ones(10, device=GPU))
        step.prepare(0)
        side, rows = config.data.image_size, torch.arange(32, device=GPU)
        pixels = torch.empty(32, side, side, 3, dtype=torch.uint8, device=GPU)
        batch = Batch(pixels, rows, rows, rows, rows % 10)
        step(batch, epoch=config.train.epochs - 1, lr=0.1, metrics_3=torch.zeros(3, device=GPU))
    parameters = [*model.parameters()]
    return {
        "devices": sorted({str(parameter.grad.device) for parameter in parameters if parameter.grad is not None}),
        "layouts": all(
            parameter.grad is not None and (parameter.grad.stride() == parameter.stride() or parameter[0].numel() == 1)
            for parameter in parameters
            if parameter.shape[2:] != (1, 1)
        ),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:])) + "\n")
