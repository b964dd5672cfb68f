"""Convolutions by matrix products give the same results and gradients as PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ConfigMaker
from trainer.model.conv import modules
from trainer.model.conv.modules import Conv1x1, Conv3x3
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model


def _pair(*, stride: int, dtype: torch.dtype = torch.float64) -> tuple[Conv3x3, nn.Conv2d]:
    conv = Conv3x3(5, 6, stride=stride).to(dtype)
    conv.by_products = True
    reference = nn.Conv2d(5, 6, kernel_size=3, stride=stride, padding=1, bias=False).to(dtype)
    reference.load_state_dict(conv.state_dict())
    return conv, reference


def _algorithm(features: Tensor) -> str:
    assert features.grad_fn is not None
    return features.grad_fn.name().removesuffix("Backward").removeprefix("_")


def _expected_algorithm(conv: nn.Conv2d, images_NCHW: Tensor) -> str:
    side = max(images_NCHW.shape[2:])
    if not isinstance(conv, Conv3x3):
        return "ConvolutionBackward0"
    if side <= 2 * conv.stride[0]:
        return "SmallMap"
    if conv.stride[0] > 1:
        return "Strided" if side <= 8 else "ConvolutionBackward0"
    return "Winograd" if side in range(4, 9) else "ConvolutionBackward0"


def _gradients(conv: nn.Conv2d, images_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    images_NCHW = images_NCHW.clone().requires_grad_()
    features = conv(images_NCHW)
    assert _algorithm(features) == _expected_algorithm(conv, images_NCHW)
    features.square().sum().backward()
    assert images_NCHW.grad is not None
    assert conv.weight.grad is not None
    return features.detach(), images_NCHW.grad, conv.weight.grad


@pytest.fixture(autouse=True)
def _winograd_for_few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "WINOGRAD_CHANNELS", 5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("stride", "sizes"),
    [
        (1, [(9, 9), (8, 8), (8, 5), (7, 2), (5, 1), (4, 4), (3, 3), (2, 2), (1, 2), (1, 1)]),
        (2, [(17, 3), (16, 9), (9, 1), (8, 8), (7, 5), (4, 4), (4, 3), (3, 3), (2, 2), (1, 1)]),
    ],
)
def test_results_and_gradients_equal_those_of_a_plain_convolution(
    stride: int, sizes: list[tuple[int, int]], layout: torch.memory_format
) -> None:
    for size in sizes:
        conv, reference = _pair(stride=stride)
        images = torch.randn(4, 5, *size, dtype=torch.float64).contiguous(memory_format=layout)
        for actual, expected in zip(_gradients(conv, images), _gradients(reference, images), strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("stride", "size"), [(1, 2), (1, 4), (1, 8), (2, 4), (2, 8)])
def test_autocast_computes_in_bf16_and_returns_fp32_gradients(stride: int, size: int) -> None:
    conv, reference = _pair(stride=stride, dtype=torch.float32)
    images = torch.randn(4, 5, size, size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = _gradients(conv, images), _gradients(reference, images)
    assert [tensor.dtype for tensor in actual] == [torch.bfloat16, torch.float32, torch.float32]
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.05, atol=0.05 * float(b.abs().max()))


@pytest.mark.parametrize(("stride", "size"), [(1, 2), (1, 4), (2, 4), (2, 8)])
def test_frozen_weights_have_no_gradient(stride: int, size: int) -> None:
    conv, _ = _pair(stride=stride)
    conv.weight.requires_grad_(False)
    images = torch.randn(2, 5, size, size, dtype=torch.float64, requires_grad=True)
    features = conv(images)
    assert _algorithm(features) == _expected_algorithm(conv, images)
    features.sum().backward()
    assert conv.weight.grad is None
    assert images.grad is not None


@pytest.mark.parametrize(("stride", "size"), [(2, (4, 4)), (2, (5, 3)), (1, (3, 3))])
def test_the_shortcut_is_a_matrix_product(stride: int, size: tuple[int, int]) -> None:
    conv = Conv1x1(5, 6, stride=stride).double()
    images = torch.randn(3, 5, *size, dtype=torch.float64)
    results = []
    for conv.by_products in (True, False):
        conv.weight.grad = None
        features = conv(images.requires_grad_())
        assert (_algorithm(features) == "ConvolutionBackward0") != conv.by_products
        features.square().sum().backward()
        results.append((features.detach(), conv.weight.grad, images.grad))
        images.grad = None
    torch.testing.assert_close(*results)


def test_evaluation_uses_the_plain_convolution() -> None:
    conv, reference = _pair(stride=2)
    images = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    features = conv.eval()(images)
    assert _algorithm(features) == "ConvolutionBackward0"
    torch.testing.assert_close(features, reference(images))


def test_numerics_switch_every_block(make_config: ConfigMaker) -> None:
    model = build_model(make_config().model, 10, seed=0)
    for wanted in ("products", "native"):
        Numerics(precision="fp32", channels_last=True, convolution=wanted).apply_to(model)
        switched = {name for name, module in model.named_modules() if getattr(module, "by_products", False)}
        every = {f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3, 4) for block in (0, 1) for conv in (1, 2)}
        every |= {f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)}
        assert switched == (every if wanted == "products" else set())


def test_a_network_has_the_same_gradients_with_products_and_convolutions(make_config: ConfigMaker) -> None:
    images_NCHW = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    gradients = []
    for convolution in ("products", "native"):
        model = build_model(make_config("model.stem=cifar-maxpool").model, 10, seed=0).double()
        Numerics(precision="fp32", channels_last=True, convolution=convolution).apply_to(model)
        model.train()(images_NCHW).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients)
