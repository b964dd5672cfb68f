"""Class activation maps: their means are the logits, and they are the classifier applied to each place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trainer.config.schema import ModelConfig
from trainer.model.activation_map import activation_maps, heat_of
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model, head_of

STEMS = [("cifar", 32, 4), ("cifar-maxpool", 64, 4), ("imagenet", 96, 3)]


def images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("stem", "size", "side"), STEMS)
def test_the_mean_of_a_map_is_the_logit_less_the_mean_logit(stem: str, size: int, side: int) -> None:
    model = build_model(ModelConfig.model_validate({"stem": stem}), 7, seed=1).eval()
    labels = torch.tensor([2, 0, 6])
    logits, maps = activation_maps(model, images(3, size), labels)
    assert maps.shape == (3, side, side)
    with torch.no_grad():
        expected = model(images(3, size))
    assert torch.equal(logits, expected)
    differences = expected[torch.arange(3), labels] - expected.mean(1)
    torch.testing.assert_close(maps.mean((1, 2)), differences, rtol=1e-4, atol=1e-5)


def test_without_a_label_the_map_is_that_of_the_most_probable_class() -> None:
    model = build_model(ModelConfig.model_validate({"stem": "cifar"}), 5, seed=1).eval()
    logits, maps = activation_maps(model, images(4, 32))
    assert torch.equal(maps, activation_maps(model, images(4, 32), logits.argmax(1))[1])


def test_a_map_is_the_classifier_applied_to_each_place() -> None:
    """In float64, place by place."""
    model = build_model(ModelConfig.model_validate({"stem": "cifar"}), 5, seed=2).double().eval()
    kept: list[torch.Tensor] = []
    model.get_submodule("layer4").register_forward_hook(lambda *arguments: kept.append(arguments[2]))
    maps = activation_maps(model, images(2, 32).double(), torch.tensor([3, 1]))[1]
    head = head_of(model)
    for y, x in ((0, 0), (1, 3), (3, 2)):
        scores = functional.linear(kept[0][:, :, y, x], head.weight, head.bias)
        expected = scores[torch.arange(2), torch.tensor([3, 1])] - scores.mean(1)
        torch.testing.assert_close(maps[:, y, x], expected, rtol=1e-10, atol=1e-12)


def test_a_part_that_all_classes_share_does_not_count() -> None:
    model = build_model(ModelConfig.model_validate({"stem": "cifar"}), 3, seed=2).eval()
    labels = torch.tensor([0, 2])
    before = activation_maps(model, images(2, 32), labels)[1]
    with torch.no_grad():
        head_of(model).weight += torch.randn(1, 512, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(activation_maps(model, images(2, 32), labels)[1], before, rtol=1e-3, atol=1e-4)


def test_maps_in_bf16_differ_by_its_rounding_alone() -> None:
    model = build_model(ModelConfig.model_validate({"stem": "cifar"}), 5, seed=2).eval()
    labels = torch.tensor([0, 1, 2, 3])
    exact = activation_maps(model, images(4, 32), labels)[1]
    with Numerics(precision="bf16", channels_last=False).autocast(torch.device("cpu")):
        rounded = activation_maps(model, images(4, 32), labels)[1]
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_large_maps_are_reduced() -> None:
    maps = torch.zeros(1, 128, 96)
    maps[0, :4, :3] = 2.0
    heat = heat_of(maps)
    assert heat.shape == (1, 32, 32)
    assert (int(heat[0, 0, 0]), int(heat.sum())) == (255, 255)
