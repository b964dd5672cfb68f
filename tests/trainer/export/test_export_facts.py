"""Single facts of an export: versions, the processor, the card, progress."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from trainer.errors import ExportError
from trainer.export.card import earlier_files
from trainer.export.onnx_file import save_proto, verdict
from trainer.export.smaller_onnx import has_vnni
from trainer.run.log.event import Event
from trainer.run.log.result_events import ExportFailed, ExportProgress
from trainer.session import export_run as exporting


def test_an_old_torch_is_refused_with_the_needed_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    with pytest.raises(ExportError, match=r"export needs torch 2\.9 or newer, this is 2\.6\.0"):
        exporting._require_torch()


def test_nan_never_passes_the_comparison() -> None:
    assert verdict({"max_abs_diff": float("nan"), "top1_agreeing": 5, "images": 5})
    assert verdict({"max_abs_diff": 0.0, "top1_agreeing": 4, "images": 5})
    assert not verdict({"max_abs_diff": 0.0009, "top1_agreeing": 5, "images": 5})


def test_vnni_is_read_from_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : sse avx2 avx512_vnni")
    assert has_vnni(tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : sse avx2")
    assert not has_vnni(tmp_path / "cpuinfo")
    assert not has_vnni(tmp_path / "nothing")


@pytest.mark.parametrize("opset", range(18, 24))
@pytest.mark.parametrize("other", [[], [("com.microsoft", 1), ("ai.onnx.ml", 5), ("ai.onnx.training", 1)]])
def test_the_ir_version_is_the_oldest_for_the_opset(opset: int, other: list[tuple[str, int]], tmp_path: Path) -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid(*pair) for pair in [("", opset), *other]]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=onnx.IR_VERSION)
    save_proto(model, tmp_path / "m.onnx", {"a": "b"})
    saved = onnx.load(str(tmp_path / "m.onnx"))
    assert saved.ir_version == min(ir for _, ir, of_onnx, *_ in onnx.helper.VERSION_TABLE if of_onnx >= opset)
    (answer,) = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": np.array([-1], np.float32)})
    assert answer.tolist() == [0.0]


def test_the_card_keeps_the_description_of_earlier_files(tmp_path: Path) -> None:
    def write(name: str, content: bytes) -> dict[str, Any]:
        (tmp_path / name).write_bytes(content)
        return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "accuracy": 0.5}

    assert earlier_files(tmp_path, {}) == {}
    int8 = write("model-int8.onnx", b"earlier")
    card: dict[str, Any] = {"step": 4, "input": {"type": "float32"}, "run": "x", "files": {"model-int8.onnx": int8}}
    (tmp_path / "model.json").write_text(json.dumps(card))
    described = {"model-int8.onnx": int8 | {"export": {"step": 4, "input": {"type": "float32"}}}}
    assert earlier_files(tmp_path, {"model.onnx": {}}) == described
    # The export after the next one still has it.
    again = {"step": 8, "input": {"type": "uint8"}, "files": {}, "files_of_earlier_exports": described}
    (tmp_path / "model.json").write_text(json.dumps(again))
    assert earlier_files(tmp_path, {}) == described
    assert earlier_files(tmp_path, described) == {}, "it was overwritten"
    other = write("model-int8.onnx", b"another file")
    del other["accuracy"]
    assert earlier_files(tmp_path, {}) == {"model-int8.onnx": other}, "an unknown file"
    for broken in ("", "[]", json.dumps({"files_of_earlier_exports": ["model-int8.onnx"]})):
        (tmp_path / "model.json").write_text(broken)
        assert earlier_files(tmp_path, {}) == {"model-int8.onnx": other}


def test_progress_never_goes_back() -> None:
    seen: list[Event] = []
    publish = exporting._never_decreasing(seen.append)
    for fraction in (0.05, 0.6, 0.72, 0.6, 0.7, 0.85, 0.72, 0.95):
        publish(ExportProgress(stage="x", fraction=fraction))
    publish(ExportFailed(error="y"))
    fractions = [event.fraction for event in seen if isinstance(event, ExportProgress)]
    assert fractions == [0.05, 0.6, 0.72, 0.72, 0.72, 0.85, 0.85, 0.95]
    assert isinstance(seen[-1], ExportFailed)
