"""Loss scaling in fp16: overflowing steps are skipped and halve the scale, and a resume restores the scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import ConfigMaker
from tests.support.checkpoints import checkpoint_of, run_record
from trainer.config.schema import Config
from trainer.model.resnet import head_of
from trainer.training import loss_scale
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer
from trainer.training.loss_scale import LossScale
from trainer.training.lr_range_test import range_test

pytestmark = pytest.mark.usefixtures("narrow_network")

FP16 = ("run.precision=fp16", "run.channels_last=false", "data.batch_size=8")
LARGER = ("data.image_size=16", "data.batch_size=16")  # batch norm over few values amplifies small differences


def _build(config: Config) -> Trainer:
    return build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer


@pytest.fixture(name="trainer")
def _trainer(make_config: ConfigMaker) -> Trainer:
    return _build(make_config(*FP16))


def _step(trainer: Trainer) -> Tensor:
    batch = next(batch for batch in trainer.batches.epoch(0, 0) if batch is not None)
    trainer.train_step(batch, epoch=0, lr=0.01, metrics_3=(metrics_3 := torch.zeros(3)))
    return metrics_3


def _scale(trainer: Trainer) -> float:
    return float(trainer.state.loss_scale.state_2[0])


def _head_gradient(trainer: Trainer) -> Tensor:
    gradient = head_of(trainer.state.model).weight.grad
    assert gradient is not None
    return gradient


@pytest.mark.parametrize("overrides", [(), ("train.grad_accum_steps=2",), ("train.max_grad_norm=0.01",)])
def test_gradients_are_unscaled(make_config: ConfigMaker, overrides: tuple[str, ...]) -> None:
    fp16, fp32 = (_build(make_config(*FP16, *overrides, *LARGER, f"run.precision={name}")) for name in ("fp16", "fp32"))
    assert _scale(fp16) > 1000
    assert not fp32.state.loss_scale.enabled
    for one in (fp16, fp32):
        assert _step(one)[2] == 0
    expected = _head_gradient(fp32)
    torch.testing.assert_close(_head_gradient(fp16), expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


def test_an_overflowing_step_is_skipped_and_halves_the_scale(trainer: Trainer) -> None:
    _step(trainer)
    trainer.state.loss_scale.state_2[0] = 2.0**60
    before = trainer.state.snapshot(run_record()).completed().tensors
    assert _step(trainer)[2] == 1
    assert _scale(trainer) == 2.0**16, "the largest"
    after = trainer.state.snapshot(run_record()).completed().tensors
    assert all(torch.equal(before[name], after[name]) for name in before if "num_batches" not in name)
    trainer.state.loss_scale.state_2[0] = 1024.0
    assert _step(trainer)[2] == 0
    assert _scale(trainer) == 1024.0


def test_the_scale_rises_after_many_good_steps_and_stays_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "_GOOD_STEPS", 5)
    scale = LossScale(torch.device("cpu"), precision="fp16")
    good, bad = torch.zeros(()), torch.ones(())
    first = float(scale.state_2[0])
    for _ in range(4):
        scale.update(good)
    assert scale.state_2.tolist() == [first, 4]
    scale.update(good)
    assert scale.state_2.tolist() == [2 * first, 0]
    scale.update(good)
    scale.update(bad)
    assert scale.state_2.tolist() == [first, 0]
    for _ in range(30):
        scale.update(bad)
    assert scale.state_2.tolist() == [1, 0]
    for _ in range(30 * 5):
        scale.update(good)
    assert scale.state_2.tolist() == [2.0**16, 0]


@pytest.mark.parametrize("seed", range(3))
def test_the_scale_changes_like_that_of_torchs_scaler_within_its_bounds(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(loss_scale, "_GOOD_STEPS", 3)
    scale = LossScale(torch.device("cpu"), precision="fp16")
    expected, good = torch.tensor(2.0**12), torch.zeros((), dtype=torch.int32)
    bad_steps = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.2
    for skipped in bad_steps.float():
        scale.update(skipped)
        torch._amp_update_scale_(expected, good, skipped, 2.0, 0.5, 3)
        expected.clamp_(1.0, 2.0**16)
        assert scale.state_2.tolist() == [float(expected), float(good)]


@pytest.mark.parametrize(
    ("before", "skipped", "after"),
    [
        ([4096.0, 0.0], 0.0, [4096.0, 1.0]), ([4096.0, 1998.0], 0.0, [4096.0, 1999.0]),
        ([4096.0, 1999.0], 0.0, [8192.0, 0.0]), ([4096.0, 1999.0], 1.0, [2048.0, 0.0]), ([2.0, 5.0], 1.0, [1.0, 0.0]),
        ([1.0, 5.0], 1.0, [1.0, 0.0]), ([2.0**15, 1999.0], 0.0, [2.0**16, 0.0]), ([2.0**16, 1999.0], 0.0, [2.0**16, 0.0]),
    ],
)  # fmt: skip
def test_the_scale_doubles_after_2000_good_steps_and_halves_after_a_bad_one(
    before: list[float], skipped: float, after: list[float]
) -> None:
    scale = LossScale(torch.device("cpu"), precision="fp16")
    assert scale.state_2.tolist() == [4096.0, 0.0]
    scale.restore(before)
    scale.restore([])  # an older checkpoint has none
    scale.update(torch.tensor(skipped))
    assert scale.state_2.tolist() == after


@pytest.mark.parametrize(("precision", "factor"), [("fp16", 512.0), ("bf16", 1.0), ("fp32", 1.0)])
def test_only_the_loss_of_an_fp16_run_is_scaled(precision: str, factor: float) -> None:
    scale = LossScale(torch.device("cpu"), precision=precision)
    scale.restore([512.0, 0.0])
    gradients = [torch.tensor([1024.0, -512.0]), torch.tensor(2.0)]
    assert float(scale.scaled(torch.tensor(3.0))) == 3.0 * factor
    scale.unscale(gradients)
    assert [gradient.tolist() for gradient in gradients] == [[1024 / factor, -512 / factor], 2 / factor]
    scale.update(torch.ones(()))
    assert scale.state_2.tolist() == [256.0 if factor > 1 else 512.0, 0.0]


def test_a_restored_state_has_its_scale(trainer: Trainer, make_config: ConfigMaker) -> None:
    _step(trainer)
    trainer.state.loss_scale.state_2[0] = 64.0
    _step(trainer)
    other = _build(make_config(*FP16))
    saved = trainer.state.snapshot(run_record()).completed()
    other.state.restore(saved)
    assert other.state.loss_scale.state_2.tolist() == [64.0, 2.0]
    older = checkpoint_of(saved.tensors, **{key: value for key, value in saved.meta.items() if key != "loss_scale"})
    trainer.state.restore(older)
    assert _scale(trainer) == 64.0


def test_a_copy_of_the_step_has_its_own_scale(trainer: Trainer) -> None:
    trainer.state.loss_scale.state_2[0] = 64.0
    copied = trainer.train_step.copy_for(trainer.state.model, trainer.state.optimizer)
    assert copied.loss_scale.state_2[0] == 64.0
    copied.loss_scale.state_2[0] = 32.0
    assert _scale(trainer) == 64.0


def test_a_range_test_continues_after_too_large_a_scale(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.lr_range_test._LOWEST", 1e-4)
    monkeypatch.setattr("trainer.training.lr_range_test._HIGHEST", 1e-3)
    trainer.state.loss_scale.state_2[0] = 2.0**14
    result = range_test(trainer, lambda _share: None, steps=7)
    assert 4 <= len(result.lrs) < 7
    assert _scale(trainer) == 2.0**14, "the run itself is unchanged"
