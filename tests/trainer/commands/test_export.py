"""`export`: files, gates, the card, and exports of live runs."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from tests.conftest import TINY, ConfigMaker, FolderMaker, needs_exporter, write_colours
from tests.support.running import events_of, new_run, start, train, wait_for
from trainer.commands import export as command
from trainer.config.loader import build_config
from trainer.config.schema import Config
from trainer.data.prepare import load_held_out
from trainer.errors import ExportError, RunError
from trainer.export.export_source import ExportSource
from trainer.export.formats import FORMATS
from trainer.export.onnx_file import write_model
from trainer.host.atomic_files import umask_mode
from trainer.run.control import commands as cmd
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.result_events import Exported, ExportFailed
from trainer.run.log.run_events import Warned
from trainer.session import export_run as exporting
from trainer.training.step import TrainStep


@pytest.fixture
def trained_config(make_folder: FolderMaker, make_config: ConfigMaker) -> Config:
    """Enough steps for batch-norm statistics to settle: before that, logits in the thousands exceed any tolerance."""
    root = make_folder(per_class=24)
    return make_config(
        "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0", "data.cache=ram", "train.epochs=4", "optim.lr=0.01"
    )  # fmt: skip


def arguments(run: RunDir, **changes: Any) -> argparse.Namespace:
    defaults = {
        "run": str(run.path), "which": "default", "data": None, "events": False, "format": None, "embed_preprocess": False,
        "runs_dir": Path("runs"),
    }  # fmt: skip
    return argparse.Namespace(**(defaults | changes))


@needs_exporter
@pytest.mark.usefixtures("narrow_network")
def test_the_exported_file_has_the_accuracy_in_its_metadata(trained_config: Config, tmp_path: Path) -> None:
    """Counts right answers with onnxruntime, the file and the images alone."""
    run = train(trained_config, tmp_path / "runs").run.run_dir
    assert command.main(arguments(run)) == 0
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
    assert parity["train_images"] == 72, "all training images are added"
    assert parity["max_abs_diff"] <= 1e-3
    assert facts["checkpoint_sha256"] == parity["checkpoint_sha256"]
    assert [event.path for event in events_of(run, Exported)] == ["export/model.onnx"]


@pytest.fixture(scope="module")
def graphs() -> dict[str, onnx.ModelProto]:
    """Exported networks, by weights and options."""
    return {}


@pytest.fixture
def exported_once(graphs: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> None:
    """Export each network with torch only once, since that takes seconds."""
    export = torch.onnx.export

    def export_once(module: torch.nn.Module, images: tuple[torch.Tensor], **options: Any) -> SimpleNamespace:
        weights = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values()))
        key = f"{weights.hexdigest()} {images[0].shape} {options}"
        if key not in graphs:
            graphs[key] = export(module, images, **options).model_proto  # type: ignore[union-attr]
        return SimpleNamespace(model_proto=copy.deepcopy(graphs[key]))

    monkeypatch.setattr(torch.onnx, "export", export_once)


@needs_exporter
@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("fault", ["weights", "nan", "exporter"])
def test_a_wrong_file_is_refused_and_the_earlier_one_stays(
    colours: RunDir, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (colours.export / "model.onnx").write_bytes(b"the earlier, verified file")
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
        command.main(arguments(colours))
    assert (colours.export / "model.onnx").read_bytes() == b"the earlier, verified file"
    assert [entry.name for entry in colours.export.iterdir()] == ["model.onnx"]
    assert len(events_of(colours, ExportFailed)) == 1
    assert events_of(colours, Exported) == []


@needs_exporter
@pytest.mark.usefixtures("narrow_network")
def test_the_export_key_does_not_interrupt_training(
    trained_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trained_config.model_copy(update={"train": trained_config.train.model_copy(update={"epochs": 2000})})
    # A module of this name in the working directory must not be imported.
    (tmp_path / "trainer.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    step = TrainStep.__call__

    def slow_step(*arguments: Any, **keywords: Any) -> None:
        time.sleep(0.02)  # leaves the processor to the export
        step(*arguments, **keywords)

    monkeypatch.setattr(TrainStep, "__call__", slow_step)
    run = new_run(config, tmp_path)
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 40)
    thread.commands.send(cmd.Export())
    before = wait_for(run.run_dir, lambda view: view.exporting is not None, timeout=150).step
    view = wait_for(
        run.run_dir, lambda view: view.exported is not None or any(n.level == "error" for n in view.notes), timeout=200
    )
    assert view.exported is not None, list(view.notes)
    assert view.step > before, "training does not wait"
    assert (run.run_dir.export / "model.onnx").is_file()
    thread.stop()
    assert thread.join(60)


def test_a_live_run_is_exported_only_by_its_trainer(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    with pytest.raises(RunError, match="already active"):
        command.main(arguments(run.run_dir))
    run.close()


def test_digits_have_their_own_test_split(make_config: ConfigMaker) -> None:
    assert len(load_held_out(make_config(), lambda *_: None).splits["test"]) == 360


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that distinguishes three colours."""
    base = tmp_path_factory.mktemp("colours")
    write_colours(base / "images", per_class=24, size=(20, 30))
    settings = (
        "data.kind=imagefolder", f"data.root={base / 'images'}", "data.image_size=16", "optim.lr=0.01", "train.epochs=6"
    )  # fmt: skip
    return train(build_config({}, {}, "test", [*TINY, *settings]), base / "runs").run.run_dir


@pytest.fixture
def colours(trained_once: RunDir, tmp_path: Path) -> RunDir:
    """A copy of that run for an export."""
    return RunDir(Path(shutil.copytree(trained_once.path, tmp_path / "runs" / "run")))


@pytest.mark.parametrize("per_class", [24, 23])
def test_an_export_warns_about_changed_images(
    colours: RunDir, per_class: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_colours(tmp_path / "images", per_class=per_class, size=(20, 30))
    monkeypatch.setattr(exporting, "_require_torch", lambda: None)
    monkeypatch.setattr(exporting._Export, "run", lambda *_: (None, {}))
    published: list[Event] = []
    exporting.export_run(colours, exporting.ExportOptions(data_root=tmp_path / "images"), published.append)
    warned = ["changed since the run was trained" in event.message for event in published if isinstance(event, Warned)]
    assert warned == ([] if per_class == 24 else [True])


@needs_exporter
@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("embed", [False, True])
def test_every_format_passes_its_gate_and_is_described(
    colours: RunDir, embed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ["int8", "fp16", "pt2", "safetensors"]
    assert command.main(arguments(colours, format=formats, embed_preprocess=embed)) == 0
    card = json.loads((colours.export / "model.json").read_text())
    assert set(card["files"]) == {FORMATS[name] for name in ["onnx", *formats]}
    for name, facts in card["files"].items():
        path = colours.export / name
        assert path.stat().st_size == facts["size_bytes"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
        assert path.stat().st_mode & 0o777 == umask_mode()
    assert card["files"]["model-int8.onnx"]["size_bytes"] < 0.3 * card["files"]["model.onnx"]["size_bytes"]
    assert card["files"]["model-fp16.onnx"]["size_bytes"] < 0.6 * card["files"]["model.onnx"]["size_bytes"]
    assert all(card["files"][name]["latency_ms"] > 0 for name in ("model.onnx", "model-int8.onnx"))
    assert card["classes"] == ["blue", "green", "red"]
    assert card["input"]["type"] == ("uint8" if embed else "float32")
    assert card["refused"] == {}
    assert "images/s (onnxruntime, CPU)" in capsys.readouterr().out
    assert not [entry.name for entry in colours.export.iterdir() if entry.name.startswith(".")], "no temporary files"
    for name in ("model.onnx", "model-int8.onnx", "model-fp16.onnx"):
        session = onnxruntime.InferenceSession(str(colours.export / name))
        assert onnx.load(str(colours.export / name)).ir_version == card["onnx"]["ir_version"]
        assert [i.type for i in session.get_inputs()] == ["tensor(uint8)" if embed else "tensor(float)"]
        shape = (5, 16, 16, 3) if embed else (5, 3, 16, 16)
        (answer,) = session.run(
            None, {session.get_inputs()[0].name: np.zeros(shape, np.uint8 if embed else np.float32)}
        )
        assert answer.shape == (5, 3)
        if embed:
            assert answer.sum(1) == pytest.approx(np.ones(5), abs=1e-2)
    module = torch.export.load(str(colours.export / "model.pt2")).module()
    pixels = torch.zeros(3, 16, 16, 3, dtype=torch.uint8) if embed else torch.zeros(3, 3, 16, 16)
    assert module(pixels).shape == (3, 3)
    with safe_open(colours.export / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["blue", "green", "red"]


@needs_exporter
@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize(
    ("name", "writer"),
    [("int8", "write_int8"), ("fp16", "write_fp16"), ("pt2", "write_pt2"), ("safetensors", "write_safetensors")],
)
def test_a_format_that_fails_its_gate_is_not_written_but_the_others_are(
    colours: RunDir, monkeypatch: pytest.MonkeyPatch, name: str, writer: str
) -> None:
    """The writer exports another network; an earlier file of its format stays unchanged."""
    earlier = colours.export / FORMATS[name]
    earlier.write_bytes(b"the earlier, verified file")
    write = getattr(exporting, writer)

    def spoilt(*inputs: Any, **options: Any) -> None:
        if isinstance(inputs[0], ExportSource):
            model = copy.deepcopy(inputs[0].model)
            with torch.no_grad():
                model.fc.bias += torch.tensor([9.0, -9.0, 0.0])  # type: ignore[union-attr, operator]
            other = dataclasses.replace(inputs[0], model=model)
            if name == "int8":
                # int8 is made from the fp32 file, so that one is changed.
                spoilt_file = inputs[2].with_suffix(".other")
                write_model(other, spoilt_file, inputs[3], optimize=True)
                write(other, spoilt_file, *inputs[2:], **options)
                spoilt_file.unlink()
                return
            write(other, *inputs[1:], **options)
            return
        proto = onnx.load(str(inputs[0]))
        for weight in proto.graph.initializer:
            if list(weight.dims) == [3]:
                weight.CopyFrom(onnx.numpy_helper.from_array(np.array([9, -9, 0], np.float32), weight.name))
        onnx.save(proto, str(inputs[1]) + ".other")
        write(Path(str(inputs[1]) + ".other"), *inputs[1:], **options)
        Path(str(inputs[1]) + ".other").unlink()

    monkeypatch.setattr(exporting, writer, spoilt)
    with pytest.raises(ExportError, match=f"{name}: not written"):
        command.main(arguments(colours, format=[*dict.fromkeys([name, "safetensors"])]))
    assert earlier.read_bytes() == b"the earlier, verified file"
    card = json.loads((colours.export / "model.json").read_text())
    assert set(card["refused"]) == {name}
    assert set(card["files"]) == {"model.onnx", "model.safetensors"} - {FORMATS[name]}
    (exported,) = events_of(colours, Exported)
    assert set(exported.files) == set(card["files"])


@needs_exporter
@pytest.mark.usefixtures("narrow_network")
def test_a_run_is_exported_as_configured(make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path) -> None:
    settings = ("data.kind=imagefolder", f"data.root={make_folder(per_class=24)}", "optim.lr=0.01", "train.epochs=4")
    wanted = ("export.embed_preprocess=true", "export.safetensors=true")
    run = train(make_config(*settings, *wanted), tmp_path / "runs").run.run_dir
    exported, refused = exporting.export_run(run, exporting.ExportOptions(), lambda _: None)
    assert refused == {}
    assert set(exported.files) == {"model.onnx", "model.safetensors"}
    assert onnxruntime.InferenceSession(str(run.export / "model.onnx")).get_inputs()[0].name == "pixels"
