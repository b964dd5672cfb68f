"""A run of an earlier program version can be opened, resumed and exported; its log, configuration and metadata are stored."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.narrow.narrow_resnet import narrow_resnet18
from tests.support.running import events_of, train, view_of
from trainer.config.schema import Config
from trainer.model.checkpoint import read_checkpoint
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Resumed
from trainer.session import export_run as exporting

EARLIER_RUN = Path(__file__).parents[1] / "support" / "earlier_run"
STEP = 4

pytestmark = pytest.mark.usefixtures("narrow_network")


def weights() -> dict[str, Tensor]:
    """Random weights and momenta by torchvision's names, for a stem with a 3x3 convolution."""
    torch.manual_seed(0)
    model = narrow_resnet18(num_classes=10).to_empty(device="cpu")
    model.conv1 = torch.nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    momenta = {f"momentum.{name}": torch.zeros_like(value) for name, value in model.named_parameters()}
    return {f"model.{name}": value.detach().contiguous() for name, value in model.state_dict().items()} | momenta


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """The run of `earlier_run`, with random weights since the original ones would take megabytes."""
    run = RunDir(tmp_path / "old")
    for folder in run.folders:
        folder.mkdir(parents=True)
    shutil.copy(EARLIER_RUN / "events.jsonl", run.events)
    shutil.copy(EARLIER_RUN / "config.yaml", run.config)
    tensors, metadata = weights(), (EARLIER_RUN / "checkpoint.json").read_text()
    content = b"".join(
        f"{name}\0{tensors[name].dtype}\0{tuple(tensors[name].shape)}\0".encode() + tensors[name].numpy().tobytes()
        for name in sorted(tensors)
    )
    sha256 = hashlib.sha256(content + metadata.encode()).hexdigest()
    header = {"format": "r18-checkpoint", "version": "1", "sha256": sha256, "json": metadata}
    save_file(tensors, run.checkpoints / "step-00000004.safetensors", metadata=header)
    for pointer in ("latest", "best"):
        (run.checkpoints / pointer).write_text("step-00000004.safetensors\n")
    return run


def test_log_and_checkpoint_of_an_earlier_run_are_read(run: RunDir) -> None:
    view = view_of(run)
    assert (view.step, view.bad_records, view.total_steps) == (STEP, 0, 4)
    assert list(view.train_loss.y) == pytest.approx([2.439641, 2.38805, 2.154271, 2.053164])
    assert [event.step for event in events_of(run, Evaluated)] == [2, 4]
    assert read_run_config(run).train.epochs == 2
    checkpoint = read_checkpoint(run.checkpoints / "step-00000004.safetensors")
    metadata = json.loads((EARLIER_RUN / "checkpoint.json").read_text())
    assert json.loads(json.dumps(checkpoint.meta)) == metadata


def test_an_earlier_run_is_resumed(run: RunDir, tmp_path: Path) -> None:
    assert train(Config(), tmp_path, resume=run, overrides=("train.epochs=3",)).exit_code == 0
    (resumed,) = events_of(run, Resumed)
    assert (resumed.step, resumed.checkpoint) == (STEP, "step-00000004.safetensors")
    assert view_of(run).step == 6


def test_an_earlier_run_is_exported(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_require_torch", lambda: None)
    exported, refused = exporting.export_run(run, exporting.ExportOptions(which="latest"), lambda _: None)
    assert (exported.step, refused) == (STEP, {})
    assert (run.export / "model.onnx").stat().st_size > 100_000
