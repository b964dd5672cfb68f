"""Per-layer statistics: norms, histograms, silent channels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.evaluation.test_evaluate import evaluate_test_split
from trainer.config.schema import Config, ModelConfig
from trainer.data.draws import EpochDraws
from trainer.model.layer_stats import BINS, SilentChannels, layer_statistics
from trainer.model.resnet import build_model, set_train_mode
from trainer.run.log.event import number
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks


@pytest.fixture
def model() -> Any:
    """A network after the backward pass of a step."""
    model: Any = build_model(ModelConfig(stem="cifar-maxpool"), 3, seed=0)
    set_train_mode(model, 0)
    images_NCHW = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model.fc.aim(torch.arange(8), EpochDraws(0))
    model(images_NCHW).square().mean().backward()
    return model


def test_every_layer_has_the_norms_of_its_weights_and_gradients(model: Any) -> None:
    stats = layer_statistics(model, step=7, epoch=1.0)
    assert len(stats.names) == 21
    assert (stats.names[0], stats.names[-1]) == ("conv1", "fc")
    for name, weight_norm, gradient_norm in zip(stats.names, stats.weight_norms, stats.gradient_norms, strict=True):
        weight = model.get_parameter(f"{name}.weight")
        assert weight_norm == pytest.approx(weight.norm().item(), rel=1e-3)
        assert gradient_norm == pytest.approx(weight.grad.norm().item(), rel=1e-3)


def test_a_histogram_counts_the_values(model: Any) -> None:
    stats = layer_statistics(model, step=7, epoch=1.0)
    layer = stats.names.index("fc")  # all of its 1,536 weights are counted
    weight, reach = model.fc.weight.detach(), stats.weight_ranges[layer]
    assert reach == pytest.approx(weight.abs().max().item(), rel=1e-3)
    expected = torch.histc(weight, BINS, -weight.abs().max().item(), weight.abs().max().item())
    assert stats.weights[layer] == expected.int().tolist()
    assert all(sum(counts) > 1000 for counts in (*stats.weights, *stats.gradients)), "only large layers are sampled"


def test_frozen_layers_have_no_gradient_statistics(model: Any) -> None:
    model.conv1.weight.grad = None
    stats = layer_statistics(model, step=7, epoch=1.0)
    assert (stats.gradient_norms[0], stats.gradient_ranges[0], stats.gradients[0]) == (None, None, [])
    assert stats.gradient_norms[1] == pytest.approx(model.layer1[0].conv1.weight.grad.norm().item(), rel=1e-3)


def test_layers_with_non_finite_gradients_are_not_reported_as_frozen(model: Any) -> None:
    model.conv1.weight.grad.fill_(math.nan)
    stats = layer_statistics(model, step=7, epoch=1.0)
    assert math.isnan(number(stats.gradient_norms[0]))
    assert (stats.gradient_ranges[0], stats.gradients[0]) == (0.0, [])


def test_silent_channels_are_found(folder_config: Config) -> None:
    trainer = build_trainer(folder_config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    model: Any = trainer.state.model
    healthy = evaluate_test_split(trainer, 16).silent
    with torch.no_grad():
        model.layer3[0].bn1.bias.fill_(-1e6)
        model.layer2[1].bn1.weight[:32] = 0.0  # with a bias of 0, the output is 0
        model.layer2[1].bn1.bias[:32] = 0.0
    silent = evaluate_test_split(trainer, 16).silent
    assert silent["layer3.0.conv1"] == 1.0
    assert 0.25 <= silent["layer2.1.conv1"] < 1.0
    assert all(share < 0.9 for share in healthy.values())
    assert not any(module._forward_hooks for module in model.modules()), "the hooks are removed"


def test_padding_images_do_not_count_for_silent_channels() -> None:
    model = build_model(ModelConfig(stem="cifar"), 3, seed=0).eval()
    images_NCHW = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    both = SilentChannels(), SilentChannels()
    with torch.no_grad():
        for silent, given in zip(both, (images_NCHW[:2], images_NCHW), strict=True):
            with silent.watching(model, 2):
                model(given)
    assert both[0].shares() == both[1].shares() != {}
