"""`run.compile`: the arguments of `torch.compile`, and training with its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ConfigMaker
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks


@pytest.mark.parametrize(
    ("how", "modes"), [("none", []), ("default", [None]), ("max-autotune", ["max-autotune-no-cudagraphs"])]
)
def test_training_uses_the_compiled_network(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, how: str, modes: list[str | None]
) -> None:
    compiled_modes: list[str | None] = []
    seen: list[int] = []

    def compiled(model: nn.Module, *, mode: str | None, dynamic: bool) -> Callable[[Tensor], Tensor]:
        assert dynamic is False
        compiled_modes.append(mode)

        def forward(images_NCHW: Tensor) -> Tensor:
            seen.append(len(images_NCHW))
            return model(images_NCHW)  # type: ignore[no-any-return]

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    # Layouts are timed before compiling, which would take minutes for each candidate.
    config = make_config(f"run.compile={how}", "run.channels_last=auto", "train.grad_accum_steps=2")
    trainer = build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    assert compiled_modes == modes
    assert seen == []
    batch = next(batch for batch in trainer.batches.epoch(0, 0) if batch is not None)
    trainer.train_step(batch, epoch=0, lr=0.01, metrics_3=torch.zeros(3))
    assert seen == ([4, 4] if modes else [])


@pytest.mark.usefixtures("narrow_network")
def test_nothing_is_compiled_again_in_later_epochs(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws of dropout depend on the epoch, which is a value on the device and no constant of the program."""
    compiled, graphs = torch.compile, torch._dynamo.utils.counters["stats"]
    monkeypatch.setattr(
        torch, "compile", lambda model, *, mode, dynamic: compiled(model, backend="eager", dynamic=dynamic)
    )
    config = make_config("run.compile=default", "model.dropout=0.2", "data.batch_size=16")
    trainer = build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    trainer.train_step.prepare(0)
    before = graphs["unique_graphs"]
    for epoch in range(3):
        batch = next(batch for batch in trainer.batches.epoch(epoch, 0) if batch is not None)
        trainer.train_step(batch, epoch=epoch, lr=0.01, metrics_3=torch.zeros(3))
    assert graphs["unique_graphs"] == before + 1
