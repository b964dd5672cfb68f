"""`data.balance`: rare classes are shown as often as others or weighted in the loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.conftest import ConfigMaker, FolderMaker
from trainer.model.resnet import head_of
from trainer.training.batch_source import loss_weights
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer


@pytest.fixture
def rare_red(make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path) -> Callable[[str], Trainer]:
    """A trainer on 12 blue, 12 green and 3 red images, by `data.balance`."""
    root = make_folder()
    for path in sorted((root / "train" / "red").iterdir())[3:]:
        path.unlink()

    def make(balance: str) -> Trainer:
        config = make_config(
            "data.kind=imagefolder", f"data.root={root}", f"data.balance={balance}", "data.drop_last=false"
        )
        return build_trainer(config, tmp_path, LoopCallbacks(), lambda *_: None, None).trainer

    return make


@pytest.mark.parametrize(("balance", "shown"), [("sampler", {9}), ("none", {12, 3}), ("loss", {12, 3})])
def test_a_sampler_shows_rare_classes_as_often_as_others(
    rare_red: Callable[[str], Trainer], balance: str, shown: set[int]
) -> None:
    batches = rare_red(balance).batches.epoch(1, 0)
    labels_N = torch.cat([batch.labels_N for batch in batches if batch is not None])
    assert len(labels_N) == 27
    assert set(torch.bincount(labels_N).tolist()) == shown


@pytest.mark.parametrize("balance", ["loss", "none", "sampler"])
def test_a_balanced_loss_weights_rare_classes(rare_red: Callable[[str], Trainer], balance: str) -> None:
    trainer = rare_red(balance)
    torch.nn.init.constant_(head_of(trainer.state.model).bias[2:], -3.0)  # the rare class has another loss
    batch = next(batch for batch in trainer.batches.epoch(0, 0) if batch is not None and 2 in batch.labels_N)
    mean_C, std_C = torch.tensor(trainer.data.mean), torch.tensor(trainer.data.std)
    images_NHWC = (batch.pixels_MHWC[batch.rows_N] / 255 - mean_C) / std_C
    with torch.no_grad():
        logits_NK = copy.deepcopy(trainer.state.model)(images_NHWC.permute(0, 3, 1, 2))
    losses_N = functional.cross_entropy(logits_NK, batch.labels_N, reduction="none")
    weights_K = torch.tensor([27 / (3 * 12), 27 / (3 * 12), 27 / (3 * 3)])  # images / (classes * images of the class)
    plain, weighted = float(losses_N.mean()), float((losses_N * weights_K[batch.labels_N]).mean())
    assert abs(plain - weighted) > 0.1
    metrics_3 = torch.zeros(3)
    trainer.train_step(batch, epoch=0, lr=0.01, metrics_3=metrics_3)
    assert float(metrics_3[0]) == pytest.approx(weighted if balance == "loss" else plain, rel=1e-4)


def test_class_weights_are_one_on_average_over_the_images(make_config: ConfigMaker) -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = loss_weights(make_config("data.balance=loss"), labels, torch.device("cpu"))
    assert weights is not None
    assert float(weights[labels].mean()) == pytest.approx(1.0)
    assert float(weights[2] / weights[0]) == pytest.approx(6.0)
