"""Every operation of a step gets tensors of one device, and gradients lie in memory as their weights do."""

from __future__ import annotations

import pytest

from tests.null_cuda.conftest import OnStandIn


@pytest.mark.parametrize(
    "settings",
    [
        ("run.precision=tf32", "optim.name=muon", "train.max_grad_norm=1.0", "data.progressive=[[16, 1]]"),
        ("run.precision=bf16", "data.mixup=0.2", "data.cutmix=1.0", "model.dropout=0.1", "data.random_erase=0.5"),
        (
            "run.precision=fp16", "train.grad_accum_steps=2", "data.crop_pad=0", "data.resized_crop=0.35",
            "data.trivial_augment=true", "optim.layer_decay=0.5",
        ),
    ],
    ids=["Muon", "mixing", "fine-tuning in fp16"],
)  # fmt: skip
def test_a_step_mixes_no_devices(on_stand_in: OnStandIn, settings: tuple[str, ...]) -> None:
    found = on_stand_in("tests.support.null_cuda.devices", *settings)
    assert found == {"devices": ["cuda:0"], "layouts": True}
