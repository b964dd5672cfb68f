"""Computed sizes, parameters and work agree with the network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config.freezing import STAGES, stage_of
from trainer.config.schema import ModelConfig
from trainer.model.resnet import MACS_PER_PIXEL, build_model
from trainer.model.stage_arithmetic import stages


@pytest.mark.parametrize(
    ("stem", "size"), [("cifar", 32), ("cifar", 24), ("cifar-maxpool", 32), ("imagenet", 64), ("imagenet", 70)]
)
def test_sizes_parameters_and_work_equal_those_of_the_model(stem: str, size: int) -> None:
    model = build_model(ModelConfig(stem=stem), 7, seed=0).eval()  # type: ignore[arg-type]
    shapes: dict[int, tuple[int, ...]] = {}
    macs = dict.fromkeys(range(len(STAGES)), 0)

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            stage = stage_of(name)
            if isinstance(module, nn.Conv2d | nn.Linear):
                macs[stage] += module.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)
            if name in ("layer1", "layer2", "layer3", "layer4", "fc", "maxpool"):
                shapes[0 if name == "maxpool" else stage] = tuple(output.shape[1:])

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(note(name))
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    computed = stages(stem, size, 7)
    assert [stage.name for stage in computed] == list(STAGES)
    for index, stage in enumerate(computed):
        expected = (stage.channels,) if stage.name == "classifier" else (stage.channels, stage.size, stage.size)
        assert shapes[index] == expected, stage
        assert macs[index] == stage.macs, stage
        own = sum(p.numel() for name, p in model.named_parameters() if stage_of(name) == index)
        assert own == stage.parameters, stage


@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("cifar-maxpool", 32), ("imagenet", 224)])
def test_the_work_per_pixel_agrees_with_the_exact_work(stem: str, size: int) -> None:
    exact = sum(stage.macs for stage in stages(stem, size, 10))
    assert exact == pytest.approx(MACS_PER_PIXEL[stem] * size**2, rel=0.01)


@pytest.mark.parametrize("stem", ["cifar", "cifar-maxpool", "imagenet"])
def test_initial_weights_have_the_distribution_of_the_paper(stem: str) -> None:
    """Normal with variance 2 / (output channels * kernel area): arXiv:1502.01852, section 2.2, backward case."""
    model = build_model(ModelConfig(stem=stem), 10, seed=0)  # type: ignore[arg-type]
    convolutions = [module.weight.detach() for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20
    for weight in convolutions:
        outputs, _, height, width = weight.shape
        values = weight.double().flatten() / math.sqrt(2 / (outputs * height * width))
        error = 1 / math.sqrt(len(values))  # standard error of the mean; the bounds are five of them
        assert abs(float(values.mean())) < 5 * error
        assert float(values.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(2) * error)
        assert float(values.pow(4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96) * error), "normal, not uniform"
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
