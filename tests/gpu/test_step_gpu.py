"""Steps on a CUDA device: nothing waits for the device, and training is the same as on the CPU."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.conftest import ConfigMaker
from tests.support.running import train, view_of
from trainer.data.batches.batches import Batch
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.cuda_graph import PLAIN_STEPS
from trainer.training.loop import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def build(make_config: ConfigMaker, *overrides: str) -> Trainer:
    config = make_config(
        "run.device=cuda", "data.flip=random", "data.crop_pad=2", "data.cutout=2", "model.dropout=0.1", *overrides
    )
    trainer = build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    trainer.last_save = time.monotonic()
    trainer.train_step.prepare(0)
    return trainer


def batches_of(trainer: Trainer) -> Iterator[Batch]:
    return (batch for batch in trainer.batches.epoch(0, 0) if batch is not None)


def take_steps(
    trainer: Trainer, batches: Iterator[Batch], steps: range, lr: Callable[[int], float] = lambda _: 0.01
) -> None:
    for step in steps:
        metrics_3 = trainer.metrics.reserve_slot(step, lr(step), trainer.config.data.batch_size)
        trainer.train_step(next(batches), epoch=0, lr=lr(step), metrics_3=metrics_3)


@contextmanager
def sync_forbidden() -> Iterator[None]:
    """Make every operation that waits for the device an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


FINE_TUNING = (
    "data.crop_pad=0", "data.resized_crop=0.5", "data.trivial_augment=true", "data.random_erase=0.5", "data.mixup=0.2",
    "data.cutmix=1.0", "data.balance=loss", "train.ema_decay=0.9", "optim.layer_decay=0.5",
)  # fmt: skip


@pytest.mark.parametrize("overrides", [(), FINE_TUNING])
def test_no_step_waits_for_the_device(make_config: ConfigMaker, overrides: tuple[str, ...]) -> None:
    trainer = build(make_config, *overrides)
    batches = batches_of(trainer)
    take_steps(trainer, batches, range(1, 4))
    with sync_forbidden():
        take_steps(trainer, batches, range(4, 10))
        trainer.metrics.start_copy(1.0)
    window = trainer.metrics.collect(wait=True)
    assert window is not None
    assert len(window.losses) == 9


@pytest.mark.parametrize(
    "overrides",
    [
        (), ("optim.name=muon",), ("run.precision=bf16", "run.channels_last=true"), ("run.precision=fp16",),
        ("model.dropout=0.1", *FINE_TUNING), ("train.grad_accum_steps=2",), ("data.cache=ram",),
        ("run.compile=default", "run.precision=bf16"),
    ],
    ids=["fp32", "muon", "bf16", "fp16", "augmented", "micro-batches", "images in RAM", "compiled"],
)  # fmt: skip
def test_replayed_steps_equal_plain_ones_and_do_not_wait(make_config: ConfigMaker, overrides: tuple[str, ...]) -> None:
    states: dict[bool, dict[str, torch.Tensor]] = {}
    losses: dict[bool, list[float]] = {}
    for captured in (True, False):
        trainer = build(
            make_config, "model.dropout=0.0", "data.batch_size=32", "run.deterministic=true", *overrides,
            f"run.cuda_graph={str(captured).lower()}",
        )  # fmt: skip
        batches = batches_of(trainer)
        take_steps(trainer, batches, range(1, PLAIN_STEPS + 2), lambda step: 0.02 / step)
        with sync_forbidden():  # the graph is captured now
            take_steps(trainer, batches, range(PLAIN_STEPS + 2, 24), lambda step: 0.02 / step)
        trainer.metrics.start_copy(1.0)
        window = trainer.metrics.collect(wait=True)
        assert window is not None
        assert trainer.train_step.remarks == []
        assert (trainer.train_step._graph is not None and trainer.train_step._graph._captured != {}) == captured
        losses[captured] = window.losses
        states[captured] = trainer.state.model.state_dict()
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    assert len(losses[True]) == 23
    for name, value in states[False].items():
        assert torch.allclose(states[True][name], value, rtol=1e-4, atol=1e-6), name


def test_metrics_arrive_without_waiting(make_config: ConfigMaker) -> None:
    trainer = build(make_config)
    take_steps(trainer, itertools.repeat(next(batches_of(trainer))), range(1, 31))
    trainer.metrics.start_copy(1.0)
    torch.cuda.synchronize()
    window = trainer.metrics.collect()
    assert window is not None
    assert window.losses[0] > window.losses[-1]


@pytest.mark.parametrize("override", ["run.precision=fp32", "run.precision=fp16", "run.convolution=products"])
def test_training_on_the_gpu_equals_training_on_the_cpu(
    make_config: ConfigMaker, tmp_path: Path, override: str
) -> None:
    losses = {}
    for device, overrides in (("cpu", ()), ("cuda", (override,))):
        config = make_config(
            f"run.device={device}", "train.epochs=1", "data.batch_size=64", "data.image_size=32", *overrides
        )
        losses[device] = list(view_of(train(config, tmp_path / device).run.run_dir).train_loss.y)
    assert losses["cuda"][:3] == pytest.approx(losses["cpu"][:3], rel=2e-2)
    assert sum(losses["cuda"][-5:]) == pytest.approx(sum(losses["cpu"][-5:]), rel=0.3)
