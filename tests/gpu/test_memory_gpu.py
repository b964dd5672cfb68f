"""A CUDA device whose memory runs out, and what is copied from it: snapshots, evaluations, fused batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import ConfigMaker
from tests.gpu.test_step_gpu import batches_of, build, sync_forbidden, take_steps
from tests.support.checkpoints import run_record
from tests.support.running import train, view_of
from trainer.training.cuda_graph import PLAIN_STEPS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("graph", ["true", "false"])
def test_a_step_that_does_not_fit_is_split(make_config: ConfigMaker, graph: str) -> None:
    trainer = build(
        make_config, "data.batch_size=512", "data.image_size=32", "model.stem=cifar", f"run.cuda_graph={graph}"
    )
    batches = batches_of(trainer)
    take_steps(trainer, batches, range(1, 2))
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    trainer.train_step.optimizer.zero_grad()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
    take_steps(trainer, batches, range(2, 3))
    assert trainer.train_step.micro_batches > 1
    assert trainer.state.finite


def test_a_snapshot_equals_the_state_and_does_not_wait(make_config: ConfigMaker) -> None:
    trainer = build(make_config, "train.ema_decay=0.9", "run.precision=fp16")
    batches = batches_of(trainer)
    take_steps(trainer, batches, range(1, PLAIN_STEPS + 3))
    expected = {name: value.cpu().clone() for name, value in trainer.state.model.state_dict().items()}
    with sync_forbidden():
        snapshot = trainer.state.snapshot(run_record())
        take_steps(trainer, batches, range(PLAIN_STEPS + 3, PLAIN_STEPS + 8))
    checkpoint = snapshot.completed()
    assert all(torch.equal(checkpoint.group("model")[name], value) for name, value in expected.items())
    assert checkpoint.state.loss_scale[0] > 0


def test_an_evaluation_equals_that_of_the_cpu(make_config: ConfigMaker, tmp_path: Path) -> None:
    accuracies = {}
    for device in ("cpu", "cuda"):
        config = make_config(f"run.device={device}", "data.batch_size=64", "eval.tta=flip", "optim.lr=0.001")
        accuracies[device] = view_of(train(config, tmp_path / device).run.run_dir).evaluations[-1].accuracy
    assert accuracies["cuda"] == pytest.approx(accuracies["cpu"], abs=0.02)


def test_fused_batch_norm_trains_as_pytorchs(make_config: ConfigMaker) -> None:
    states: list[dict[str, Tensor]] = []
    for norm in ("native", "fused"):
        trainer = build(
            make_config, "data.batch_size=32", "run.deterministic=true", "run.channels_last=true",
            f"run.batch_norm={norm}", "model.dropout=0.0",
        )  # fmt: skip
        take_steps(trainer, batches_of(trainer), range(1, 12))
        states.append(trainer.state.model.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(states[1][name].double(), value.double(), rtol=1e-3, atol=1e-4), name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_processes_replay_their_steps(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trainer", "digits"]
    done = subprocess.run(
        [*command, "run.device=cuda", "train.epochs=3", "--runs-dir", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "kernel by kernel" not in done.stdout
