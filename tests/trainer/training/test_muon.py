"""Muon: orthogonalised updates of kernels, and plain SGD for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ConfigMaker
from tests.support.checkpoints import run_record
from trainer.config.schema import ModelConfig, OptimConfig
from trainer.model.resnet import build_model
from trainer.training import muon
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer
from trainer.training.muon import orthogonalized
from trainer.training.optimizer import build_optimizer

OPTIM = OptimConfig(name="muon", lr=0.1, weight_decay=0.01, kernel_lr=0.05, kernel_momentum=0.6)


def _matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))


def _orthogonalized(matrices_BRC: Tensor) -> Tensor:
    lengths_B11 = matrices_BRC.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    return orthogonalized((matrices_BRC / lengths_B11).to(torch.bfloat16)).float()


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))


def _backward(model: nn.Module, seed: int) -> None:
    model.zero_grad()
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 0, 1, 1])).backward()


@pytest.mark.parametrize(("outputs", "channels", "side"), [(16, 8, 3), (24, 2, 3), (32, 16, 1), (16, 32, 1)])
def test_orthogonalising_moves_singular_values_near_one(outputs: int, channels: int, side: int) -> None:
    matrix = _matrix(outputs, channels * side**2)
    update = _orthogonalized(torch.stack([matrix, -2 * matrix, matrix.flip(0)]))
    assert torch.allclose(update, torch.stack([update[0], -update[0], update[0].flip(0)]), atol=2e-2), "each by itself"
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.diagonal(left.t() @ update[0] @ right.t())
    assert singular.min() > 0.2, "three iterations are not enough for the smallest ones of a random matrix"
    assert singular.max() < 1.3
    assert singular.median() > 0.65
    rest = update[0] - left @ torch.diag(singular) @ right
    assert rest.norm() < 0.1 * update[0].norm()


def test_an_update_does_not_depend_on_the_gradients_scale() -> None:
    matrices = _matrix(16, 72)[None]
    assert torch.allclose(_orthogonalized(matrices), _orthogonalized(matrices * 2.0**-20), atol=1e-2)
    assert not _orthogonalized(torch.zeros(2, 4, 27)).any(), "a zero gradient is not an error"


def test_a_step_rotates_a_kernel_by_the_rate_and_keeps_its_norm() -> None:
    model = _model()
    optimizer = build_optimizer(model, OPTIM, precision="bf16")
    kernel = next(model.parameters())
    for seed, share in enumerate((1.0, 0.5)):
        before = kernel.detach().clone()
        optimizer.set_lr(0.1 * share)
        _backward(model, seed)
        optimizer.step()
        cosine = torch.dot(before.flatten(), kernel.detach().flatten()) / before.norm() ** 2
        # The part of an update along the kernel does not rotate it.
        assert 0.5 * 0.05 * share < torch.arccos(cosine.clamp(max=1.0)) < 1.05 * 0.05 * share
        assert float(kernel.detach().norm()) == pytest.approx(float(before.norm()), rel=1e-5)


def test_other_parameters_are_trained_by_sgd_bit_for_bit() -> None:
    model, plain = _model(), _model()
    optimizer = build_optimizer(model, OPTIM, precision="bf16")
    reference = build_optimizer(plain, OptimConfig(lr=0.1, weight_decay=0.01), precision="bf16")
    for seed in range(3):
        _backward(model, seed)
        _backward(plain, seed)
        with torch.no_grad():
            for trained, expected in zip(model.parameters(), plain.parameters(), strict=True):
                assert trained.grad is not None
                assert expected.grad is not None
                expected.grad.copy_(trained.grad)
        optimizer.step()
        reference.step()
    pairs = list(zip(model.parameters(), plain.parameters(), strict=True))
    assert not torch.equal(pairs[0][0], pairs[0][1])
    assert all(torch.equal(trained, expected) for trained, expected in pairs[1:])


@pytest.mark.usefixtures("narrow_network")
@pytest.mark.parametrize("nesterov", [True, False])
def test_kernels_turned_together_are_turned_as_one_by_one(monkeypatch: pytest.MonkeyPatch, nesterov: bool) -> None:
    """As on a GPU: kernels of many shapes, in one vector."""
    weights: list[list[Tensor]] = []
    for together in (False, True):
        if together:
            monkeypatch.setattr(muon, "_parts", lambda parameters: [parameters])
        model = build_model(ModelConfig(stem="cifar"), 10, seed=0).to(memory_format=torch.channels_last)
        optim = OPTIM.model_copy(update={"nesterov": nesterov})
        optimizer = build_optimizer(model, optim, precision="fp32")
        for seed in range(2):
            optimizer.set_lr(0.1)
            for place, parameter in enumerate(model.parameters()):
                drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * seed + place))
                parameter.grad = drawn  # contiguous, other than the kernels
            optimizer.step()
        weights.append([*model.parameters(), *(state["momentum_buffer"] for state in optimizer.state.values())])
    for one_by_one, joined in zip(*weights, strict=True):
        torch.testing.assert_close(joined, one_by_one, rtol=1e-4, atol=1e-5)


def test_a_frozen_kernel_is_unchanged() -> None:
    model = _model()
    optimizer = build_optimizer(model, OPTIM, precision="bf16")
    kernel = next(model.parameters())
    before = kernel.detach().clone()
    kernel.requires_grad_(False)
    _backward(model, 0)
    optimizer.step()
    assert torch.equal(kernel, before)


def test_a_restored_muon_state_continues_bit_for_bit(make_config: ConfigMaker) -> None:
    config = make_config("optim.name=muon", "data.batch_size=16", "train.ema_decay=0.9", "run.deterministic=true")
    straight, pieced = (
        build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer for _ in range(2)
    )
    batches = [batch for batch, _ in zip(straight.batches.epoch(0, 0), range(3), strict=False)]

    def step(trainer: Trainer, number: int) -> None:
        batch = batches[number]
        assert batch is not None
        trainer.train_step(batch, epoch=0, lr=0.02, metrics_3=torch.zeros(3))

    step(straight, 0)
    pieced.state.restore(straight.state.snapshot(run_record()).completed())
    for trainer in (straight, pieced):
        step(trainer, 1)
        step(trainer, 2)
    ended, expected = (trainer.state.snapshot(run_record()).completed().tensors for trainer in (pieced, straight))
    assert ended.keys() == expected.keys()
    assert all(torch.equal(ended[name], expected[name]) for name in expected)
