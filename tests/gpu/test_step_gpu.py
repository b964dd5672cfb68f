"""What only a CUDA device can show: no wait on the step path, and the same training as on the CPU."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ConfigMaker
from tests.running import train, view_of
from trainer.build import build_trainer
from trainer.checkpoint import Checkpoint
from trainer.errors import CheckpointError
from trainer.evaluate import Evaluation
from trainer.loop import Trainer
from trainer.run.events import Event

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class Quiet:
    """Hooks that do nothing."""

    def publish(self, event: Event) -> None:
        """Nobody reads."""

    def poll(self, evaluating: float | None = None) -> None:
        """Nobody asks."""

    def save(self, *, best: bool = False) -> None:
        """Nothing is kept."""

    def saved_best(self) -> Checkpoint:
        """Nothing is kept."""
        raise CheckpointError("nothing is kept")

    def evaluating(self, split: str) -> None:
        """Nobody watches."""

    def training(self) -> None:
        """Nobody watches."""

    def diverged(self, step: int, first_skipped: int) -> None:
        """Nobody decides."""

    def measured(self, split: str, evaluation: Evaluation) -> None:
        """Nobody watches."""


def built(make_config: ConfigMaker, *overrides: str) -> Trainer:
    config = make_config(
        "run.device=cuda", "data.flip=random", "data.crop_pad=2", "data.cutout=2", "model.dropout=0.1", *overrides
    )
    trainer = build_trainer(config, Path("runs"), Quiet(), lambda *_: None, None).trainer
    trainer.last_save = time.monotonic()
    return trainer


def test_no_step_waits_for_the_device(make_config: ConfigMaker) -> None:
    trainer = built(make_config)
    trainer.train_step.prepare(0)
    batches = (batch for batch in trainer.batches.epoch(0, 0) if batch is not None)
    for step in range(1, 4):
        trainer.train_step(next(batches), epoch=0, lr=0.01, metrics_3=trainer.metrics.slot(step, 0.01, 8))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(4, 10):
            trainer.train_step(next(batches), epoch=0, lr=0.01, metrics_3=trainer.metrics.slot(step, 0.01, 8))
        trainer.metrics.start_copy(1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    window = trainer.metrics.collect(wait=True)
    assert window is not None
    assert len(window.losses) == 9


def test_metrics_arrive_without_being_waited_for(make_config: ConfigMaker) -> None:
    trainer = built(make_config)
    trainer.train_step.prepare(0)
    batch = next(batch for batch in trainer.batches.epoch(0, 0) if batch is not None)
    for step in range(1, 31):
        trainer.train_step(batch, epoch=0, lr=0.01, metrics_3=trainer.metrics.slot(step, 0.01, 8))
    trainer.metrics.start_copy(1.0)
    torch.cuda.synchronize()
    window = trainer.metrics.collect()
    assert window is not None
    assert window.losses[0] > window.losses[-1]


def test_a_run_on_the_gpu_learns_what_a_run_on_the_cpu_learns(make_config: ConfigMaker, tmp_path: Path) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        config = make_config(f"run.device={device}", "train.epochs=1", "data.batch_size=64")
        losses[device] = list(view_of(train(config, tmp_path / device).run.run_dir).train_loss.y)
    assert losses["cuda"][:3] == pytest.approx(losses["cpu"][:3], rel=2e-2)
    assert sum(losses["cuda"][-5:]) == pytest.approx(sum(losses["cpu"][-5:]), rel=0.3)
