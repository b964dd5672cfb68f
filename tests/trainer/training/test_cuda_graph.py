"""Steps replayed over fixed buffers; a CPU stands in for the device and recomputes what a graph would replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import ConfigMaker
from tests.support.checkpoints import run_record
from trainer.config.schema import Config
from trainer.model.numerics import Numerics
from trainer.training import step as step_module
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.cuda_graph import PLAIN_STEPS, Compute, StepGraph
from trainer.training.loop import Trainer
from trainer.training.step import why_not_captured

SETTINGS = (
    "data.flip=random", "data.crop_pad=2", "data.cutout=2", "data.image_size=16", "data.progressive=[[8, 1]]", "train.epochs=2",
    "train.max_grad_norm=1.0", "data.batch_size=16",
)  # fmt: skip


class SimulatedGraph(StepGraph):
    """Counts captures and replays, and computes the steps on the CPU."""

    captured: list[tuple[int, ...]]
    replayed: int

    def _captured(self, compute: Compute) -> Callable[[], None]:
        self.captured = [*getattr(self, "captured", []), self._shape]

        def replay() -> None:
            self.replayed = getattr(self, "replayed", 0) + 1
            compute(self._images, self._labels, self._metrics)

        return replay


class Uncapturable(StepGraph):
    def _captured(self, compute: Compute) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nException raised from somewhere in C++")


def _steps(config: Config) -> tuple[Trainer, list[Tensor]]:
    """Take ten steps in two epochs, with images of two sizes and a changing rate."""
    trainer = build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    metrics, done = [], 0
    for epoch in range(2):
        for batch, _ in zip(trainer.batches.epoch(epoch, 0), range(5), strict=False):
            assert batch is not None
            metrics.append(torch.zeros(3))
            trainer.train_step(batch, epoch=epoch, lr=0.02 / (1 + done), metrics_3=metrics[-1])
            done += 1
    return trainer, metrics


def test_replayed_steps_equal_plain_ones(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(*SETTINGS)
    plain, plain_metrics = _steps(config)
    monkeypatch.setattr(step_module, "why_not_captured", lambda *_: "")
    monkeypatch.setattr(step_module, "StepGraph", SimulatedGraph)
    replayed, metrics = _steps(config)
    graph = replayed.train_step._graph
    assert isinstance(graph, SimulatedGraph)
    assert graph.captured == [(16, 8), (16, 16)], "captured again for larger images"
    assert graph.replayed == 10 - 2 * PLAIN_STEPS
    assert all(torch.equal(actual, expected) for actual, expected in zip(metrics, plain_metrics, strict=True))
    actual, expected = replayed.state.model.state_dict(), plain.state.model.state_dict()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_a_step_that_cannot_be_captured_is_computed_without_a_graph(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(*SETTINGS)
    _, expected = _steps(config)
    monkeypatch.setattr(step_module, "why_not_captured", lambda *_: "")
    monkeypatch.setattr(step_module, "StepGraph", Uncapturable)
    trainer, metrics = _steps(config)
    assert all(torch.equal(a, b) for a, b in zip(metrics, expected, strict=True))
    assert trainer.train_step.remarks == [
        "steps are computed kernel by kernel: no CUDA graph: operation not permitted when stream is capturing"
    ], "reported once"


def test_unfreezing_a_stage_requires_a_new_capture(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "why_not_captured", lambda *_: "")
    monkeypatch.setattr(step_module, "StepGraph", SimulatedGraph)
    trainer, _ = _steps(make_config(*SETTINGS))
    graph = trainer.train_step._graph
    assert graph is not None
    assert graph.replays(16, 16)
    trainer.train_step.prepare(0)
    assert graph.replays(16, 16), "nothing changes after an evaluation"
    trainer.train_step.prepare(2)
    assert not graph.replays(16, 16)


def test_restoring_momenta_keeps_their_addresses(make_config: ConfigMaker) -> None:
    trainer, _ = _steps(make_config(*SETTINGS))
    optimizer = trainer.state.optimizer
    before = {parameter: state["momentum_buffer"].data_ptr() for parameter, state in optimizer.state.items()}
    values = {parameter: state["momentum_buffer"].clone() for parameter, state in optimizer.state.items()}
    trainer.state.restore(trainer.state.snapshot(run_record()))
    assert {parameter: state["momentum_buffer"].data_ptr() for parameter, state in optimizer.state.items()} == before
    assert all(torch.equal(optimizer.state[parameter]["momentum_buffer"], value) for parameter, value in values.items())


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("data.flip=random", ""),
        ("run.cuda_graph=false", "run.cuda_graph is off"),
        ("model.dropout=0.1", "dropout draws a new mask in every step"),
        ("data.cutmix=1.0", "mixed images"),
        ("train.grad_accum_steps=2", "micro-batches"),
    ],
)
def test_the_reason_for_not_capturing_is_given(make_config: ConfigMaker, override: str, reason: str) -> None:
    numerics = Numerics(precision="bf16", channels_last=True)
    assert why_not_captured(make_config(override), numerics, torch.device("cuda"), None) == reason
    assert why_not_captured(make_config(override), numerics, torch.device("cpu"), None) == "no CUDA device"


def test_a_scaled_loss_is_not_captured(make_config: ConfigMaker) -> None:
    numerics = Numerics(precision="fp16", channels_last=True)
    assert why_not_captured(make_config(), numerics, torch.device("cuda"), None).startswith("fp16 waits")
