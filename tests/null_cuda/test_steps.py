"""What the CPU does for each training step on a GPU: few launches, no waits, no copies of pageable memory."""

from __future__ import annotations

import pytest

from tests.null_cuda.conftest import OnStandIn

MOST_LAUNCHES = 10
LONGEST_SNAPSHOT_MS = 20.0  # on a busy machine; 2 on a quiet one


AUGMENTED = (
    "data.crop_pad=0", "data.resized_crop=0.35", "data.trivial_augment=true", "data.random_erase=0.25", "data.mixup=0.2",
    "data.cutmix=1.0", "model.dropout=0.1", "optim.layer_decay=0.65", "train.ema_decay=0.99", "data.balance=loss",
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [AUGMENTED, ("run.precision=fp16", "data.cache=ram"), ("optim.name=muon", "train.grad_accum_steps=2")],
    ids=["augmented", "fp16, images in RAM", "Muon, micro-batches"],
)
def test_a_step_is_one_graph_and_waits_for_nothing(on_stand_in: OnStandIn, settings: tuple[str, ...]) -> None:
    found = on_stand_in("tests.support.null_cuda.steps", "cifar", *settings)
    assert found["violations"] == {}
    assert found["not_captured"] == ""
    assert found["graph_nodes"] > 100
    assert found["launches"] <= MOST_LAUNCHES
    assert (found["waits"], found["pageable"]) == (0, 0)
    assert found["uploads"] == (2 if "data.cache=ram" in settings else 0)
    snapshot = found["snapshot"]
    assert (snapshot["waits"], snapshot["pageable"]) == (0, 0)
    assert snapshot["launches"] <= MOST_LAUNCHES
    assert snapshot["cpu_ms"] < LONGEST_SNAPSHOT_MS


def test_the_counts_tell_a_step_without_a_graph(on_stand_in: OnStandIn) -> None:
    found = on_stand_in("tests.support.null_cuda.steps", "cifar", "run.cuda_graph=false")
    assert found["not_captured"] == "run.cuda_graph is off"
    assert found["graph_nodes"] == 0
    assert found["launches"] > 300
