"""Evaluating a split: padding the last batch does not change the results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.config.schema import Config
from trainer.data.batches.lost_images import LostImages
from trainer.evaluation import evaluate as evaluate_module
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer


@pytest.mark.parametrize(("batch_size", "shapes"), [(16, [16]), (64, [36])])
def test_padding_the_last_batch_does_not_change_the_evaluation(
    folder_config: Config, monkeypatch: pytest.MonkeyPatch, batch_size: int, shapes: list[int]
) -> None:
    trainer = build_trainer(folder_config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    seen: list[int] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(len(inputs[0]))

    trainer.state.model.register_forward_pre_hook(note)
    plain = evaluate_test_split(trainer, batch_size)
    seen.clear()
    monkeypatch.setattr(evaluate_module, "_PAD_LAST_BATCH_ON", ("cpu",))
    padded = evaluate_test_split(trainer, batch_size)
    assert sorted(set(seen)) == shapes
    assert torch.equal(padded.confusion_KK, plain.confusion_KK)
    assert padded.silent == plain.silent
    assert padded.accuracy_tta == plain.accuracy_tta
    assert padded.loss == pytest.approx(plain.loss, rel=1e-6)


def evaluate_test_split(trainer: Trainer, batch_size: int) -> Evaluation:
    split = trainer.data.dataset.splits["test"]
    assert len(split) == 36
    return evaluate(
        trainer.state.model, split, normalize=trainer.data.normalize, numerics=trainer.train_step.numerics, num_classes=3,
        batch_size=batch_size, tta=True, device=trainer.device, poll=lambda _share: None, lost=LostImages(lambda _text: None),
    )  # fmt: skip
