"""Class activation maps: their means are the logits, and they point to where the evidence lies."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trainer.config.schema import ModelConfig
from trainer.model.activation_map import activation_maps, map_of
from trainer.model.resnet import build_model, head_of


@pytest.mark.whole_network
@pytest.mark.parametrize(("stem", "size", "side"), [("cifar", 32, 4), ("cifar-maxpool", 64, 4), ("imagenet", 96, 3)])
def test_the_mean_of_a_map_is_the_logit(stem: str, size: int, side: int) -> None:
    model = build_model(ModelConfig.model_validate({"stem": stem}), 7, seed=1).eval()
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits, maps = activation_maps(model, images)
    assert maps.shape == (3, 7, side, side)
    with torch.no_grad():
        expected = model(images)
    assert torch.equal(logits, expected)
    torch.testing.assert_close(maps.mean((2, 3)), expected, rtol=1e-4, atol=1e-5)
    chosen = map_of(maps, torch.tensor([2, 0, 6]))
    assert torch.equal(chosen, torch.stack([maps[0, 2], maps[1, 0], maps[2, 6]]))


def test_a_map_is_the_classifier_applied_to_each_place() -> None:
    """In float64, place by place."""
    model = build_model(ModelConfig.model_validate({"stem": "cifar"}), 5, seed=2).double().eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept: list[torch.Tensor] = []
    model.get_submodule("layer4").register_forward_hook(lambda *arguments: kept.append(arguments[2]))
    maps = activation_maps(model, images)[1]
    head = head_of(model)
    for place in ((0, 0), (1, 3), (3, 2)):
        expected = functional.linear(kept[0][:, :, place[0], place[1]], head.weight, head.bias)
        torch.testing.assert_close(maps[:, :, place[0], place[1]].double(), expected, rtol=1e-5, atol=1e-5)
