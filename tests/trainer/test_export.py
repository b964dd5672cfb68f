from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import ConfigMaker, FolderMaker, needs_exporter
from tests.running import events_of, new_run, start, train, wait_for
from trainer import export_onnx
from trainer.config import Config
from trainer.data.build import load_held_out
from trainer.errors import ExportError, RunError
from trainer.run import commands as cmd
from trainer.run.events import Exported, ExportFailed
from trainer.run.store import RunDir


@pytest.fixture
def trained_config(make_folder: FolderMaker, make_config: ConfigMaker) -> Config:
    """Enough steps for batch-norm statistics to settle: before that, logits in the thousands drown any tolerance."""
    root = make_folder(per_class=24)
    return make_config(
        "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0", "data.cache=ram", "train.epochs=4", "optim.lr=0.01"
    )  # fmt: skip


def arguments(run: RunDir, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **(
            {"run": str(run.path), "which": "default", "data": None, "events": False, "runs_dir": Path("runs")}
            | changes
        )
    )


@needs_exporter
def test_the_file_predicts_as_well_as_its_metadata_say(trained_config: Config, tmp_path: Path) -> None:
    """An onnxruntime that knows nothing but the file and the images counts the same right answers."""
    run = train(trained_config, tmp_path / "runs").run.run_dir
    assert export_onnx.main(arguments(run)) == 0
    path = run.export / "model.onnx"
    assert [entry.name for entry in run.export.iterdir() if entry.suffix != ".json"] == ["model.onnx"], "one file"
    session = onnxruntime.InferenceSession(str(path))
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["blue", "green", "red"]
    preprocess = json.loads(facts["preprocess"])
    assert preprocess["size"] == 8
    assert preprocess["channel_order"] == "RGB"
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("input", ["batch", 3, 8, 8])]
    assert [o.name for o in session.get_outputs()] == ["output"]
    split = load_held_out(trained_config, lambda *_: None).splits["test"]
    pixels = split.pixels(range(len(split))).numpy().astype(np.float32) * preprocess["pixel_scale"]
    batch = ((pixels - preprocess["mean"]) / preprocess["std"]).astype(np.float32).transpose(0, 3, 1, 2)
    right = int((session.run(None, {"input": batch})[0].argmax(1) == split.labels_N.numpy()).sum())
    assert right == int(facts["accuracy_correct"])
    assert (facts["accuracy_split"], facts["accuracy_images"]) == ("test", "72")
    parity = json.loads((run.export / "parity.json").read_text())
    assert parity["held_out_images"] == 72
    assert parity["train_images"] == 72, "topped up with all train images there are"
    assert parity["max_abs_diff"] <= 1e-3
    assert facts["checkpoint_sha256"] == parity["checkpoint_sha256"]
    assert [event.path for event in events_of(run, Exported)] == ["export/model.onnx"]


@needs_exporter
@pytest.mark.parametrize("fault", ["weights", "nan", "exporter"])
def test_a_wrong_file_is_refused_and_the_earlier_one_stays(
    trained_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    run = train(trained_config, tmp_path / "runs").run.run_dir
    (run.export / "model.onnx").write_bytes(b"the earlier, verified file")
    save = onnx.save

    def spoilt(proto: Any, path: str) -> None:
        for weight in proto.graph.initializer:
            if len(weight.dims) == 2:
                values = onnx.numpy_helper.to_array(weight).copy()
                values[0] += float("nan") if fault == "nan" else 0.01
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        save(proto, path)

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("the exporter is broken")

    if fault == "exporter":
        monkeypatch.setattr(torch.onnx, "export", failing)
    else:
        monkeypatch.setattr(onnx, "save", spoilt)
    with pytest.raises(ExportError):
        export_onnx.main(arguments(run))
    assert (run.export / "model.onnx").read_bytes() == b"the earlier, verified file"
    assert [entry.name for entry in run.export.iterdir()] == ["model.onnx"]
    assert len(events_of(run, ExportFailed)) == 1
    assert events_of(run, Exported) == []


@needs_exporter
def test_the_key_exports_while_training_goes_on(
    trained_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trained_config.model_copy(update={"train": trained_config.train.model_copy(update={"epochs": 2000})})
    # A module of the user's own in the working directory must not be taken for ours.
    (tmp_path / "trainer.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    run = new_run(config, tmp_path)
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 40)
    thread.commands.send(cmd.Export())
    before = wait_for(run.run_dir, lambda view: view.exporting is not None).step
    view = wait_for(
        run.run_dir, lambda view: view.exported is not None or any(n.level == "error" for n in view.notes), timeout=200
    )
    assert view.exported is not None, list(view.notes)
    assert view.step > before, "training must not have waited"
    assert (run.run_dir.export / "model.onnx").is_file()
    thread.stop()
    assert thread.join(60)


def test_a_live_run_is_exported_by_its_own_trainer_only(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    with pytest.raises(RunError, match="live already"):
        export_onnx.main(arguments(run.run_dir))
    run.close()


def test_an_old_torch_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    with pytest.raises(ExportError, match=r"export needs torch 2\.9 or newer, this is 2\.6\.0"):
        export_onnx._require_torch()


def test_nan_never_passes_for_agreement() -> None:
    assert export_onnx._verdict({"max_abs_diff": float("nan"), "top1_agreeing": 5, "images": 5})
    assert export_onnx._verdict({"max_abs_diff": 0.0, "top1_agreeing": 4, "images": 5})
    assert not export_onnx._verdict({"max_abs_diff": 0.0009, "top1_agreeing": 5, "images": 5})


def test_digits_measure_their_own_test_split(make_config: ConfigMaker) -> None:
    assert len(load_held_out(make_config(), lambda *_: None).splits["test"]) == 360
