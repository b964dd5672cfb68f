"""fp16: the loss is scaled, what overflows is left out and the scale halved, and a resume knows the scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import ConfigMaker
from trainer.build import build_trainer
from trainer.hooks import NoSession
from trainer.loop import Trainer
from trainer.model import head_of

FP16 = ("run.precision=fp16", "run.channels_last=false", "run.convolution=native", "data.batch_size=8", "data.image_size=8")


@pytest.fixture(name="trainer")
def _trainer(make_config: ConfigMaker) -> Trainer:
    return build_trainer(make_config(*FP16), Path("runs"), NoSession(), lambda *_: None, None).trainer


def _step(trainer: Trainer) -> Tensor:
    batch = next(batch for batch in trainer.batches.epoch(0, 0) if batch is not None)
    trainer.train_step(batch, epoch=0, lr=0.01, metrics_3=(metrics_3 := torch.zeros(3)))
    return metrics_3


def _scale(trainer: Trainer) -> float:
    return float(trainer.state.loss_scale.get_scale())


def test_gradients_are_those_of_the_loss_itself(trainer: Trainer, make_config: ConfigMaker) -> None:
    plain_config = make_config(*FP16, "run.precision=fp32")
    plain = build_trainer(plain_config, Path("runs"), NoSession(), lambda *_: None, None).trainer
    assert _scale(trainer) > 1000
    assert not plain.state.loss_scale.is_enabled()
    for one in (trainer, plain):
        assert _step(one)[2] == 0
    ours, theirs = (head_of(one.state.model).weight.grad for one in (trainer, plain))
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02 * float(theirs.abs().max()))


def test_a_step_that_overflows_is_left_out_and_halves_the_scale(trainer: Trainer) -> None:
    _step(trainer)
    trainer.state.loss_scale.update(2.0**40)
    before = trainer.state.snapshot({}).tensors
    assert _step(trainer)[2] == 1
    assert _scale(trainer) == 2.0**39
    after = trainer.state.snapshot({}).tensors
    assert all(torch.equal(before[name], after[name]) for name in before)
    trainer.state.loss_scale.update(1024.0)
    assert _step(trainer)[2] == 0
    assert _scale(trainer) == 1024.0


def test_a_restored_state_goes_on_with_its_scale(trainer: Trainer, make_config: ConfigMaker) -> None:
    _step(trainer)
    trainer.state.loss_scale.update(64.0)
    _step(trainer)
    other = build_trainer(make_config(*FP16), Path("runs"), NoSession(), lambda *_: None, None).trainer
    other.state.restore(trainer.state.snapshot({}))
    assert other.state.loss_scale.state_dict() == trainer.state.loss_scale.state_dict()
    assert _scale(other) == 64.0


def test_a_copy_of_the_step_has_a_scale_of_its_own(trainer: Trainer) -> None:
    _step(trainer)
    trainer.state.loss_scale.update(64.0)
    copied = trainer.train_step.on(trainer.state.model, trainer.state.optimizer)
    assert copied.loss_scale.get_scale() == 64.0
    copied.loss_scale.update(32.0)
    assert _scale(trainer) == 64.0
