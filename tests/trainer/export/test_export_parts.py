"""Parts of an export: the settings of int8, the card, the speed, and the child process of a live run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnxruntime import quantization
from onnxruntime.quantization import shape_inference

from tests.support.canned import evaluated
from tests.support.exported_noise import CLASSES, QUIET, SIDE, TRAIN, noise_subject
from tests.support.written_runs import write_log
from trainer.export import smaller_onnx, speed
from trainer.export.card import card_of
from trainer.export.smaller_onnx import has_vnni, write_int8
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import encode
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Evaluated, Exported, ExportFailed, ExportProgress
from trainer.run.log.run_events import NoteAdded
from trainer.session import export_run as command
from trainer.session.export_child import ExportChild


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("embed", [True, False])
def test_int8_is_signed_per_channel_and_calibrated_with_training_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vnni: bool, embed: bool
) -> None:
    one, settings = noise_subject(embed=embed), {}
    fed: list[dict[str, Any]] = []

    def quantize(_source: str, _target: str, reader: Any, **given: Any) -> None:
        while (batch := reader.get_next()) is not None:
            fed.append(batch)
        settings.update(given)

    monkeypatch.setattr(quantization, "quantize_static", quantize)
    monkeypatch.setattr(shape_inference, "quant_pre_process", QUIET)
    monkeypatch.setattr(smaller_onnx, "has_vnni", lambda: vnni)
    monkeypatch.setattr("onnx.load", QUIET)
    monkeypatch.setattr(smaller_onnx, "save_proto", QUIET)
    write_int8(one, tmp_path / "a", tmp_path / "b", {})
    assert settings["quant_format"] is quantization.QuantFormat.QDQ
    assert (settings["weight_type"], settings["activation_type"]) == (
        quantization.QuantType.QInt8, quantization.QuantType.QUInt8
    )  # fmt: skip
    assert (settings["per_channel"], settings["reduce_range"]) == (True, not vnni)
    assert {*settings["op_types_to_quantize"]} == {"Conv", "Gemm", "Add", "MaxPool", "Relu"}
    (name,) = {key for batch in fed for key in batch}
    images = np.concatenate([batch[name] for batch in fed])
    pixels = one.dataset.splits["train"].pixels(range(TRAIN))
    expected = pixels.numpy() if embed else one.normalized(pixels).numpy()
    assert name == ("pixels" if embed else "input")
    assert sorted(row.tobytes() for row in images) == sorted(row.tobytes() for row in expected), "each image once"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512_vnni", True),
        ("avx2 avx_vnni", True),
        ("asimd asimddp", True),
        ("avx2 avx512f", False),
        ("", False),
    ],
)
def test_processors_with_vnni_are_recognised(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    assert has_vnni(tmp_path / "cpuinfo") is expected


METADATA = {
    "weights": "ema", "checkpoint_sha256": "abc", "accuracy_split": "val", "accuracy": "0.750000", "accuracy_correct": "150",
    "accuracy_images": "200", "versions": '{"torch": "2.9"}',
}  # fmt: skip


@pytest.mark.parametrize("embed", [False, True])
def test_the_card_describes_input_output_and_accuracy(embed: bool) -> None:
    files = {"model.onnx": {"size_bytes": 5}}
    card = card_of(
        noise_subject(embed=embed),
        METADATA,
        files,
        run="demo",
        refused={"int8": "worse"},
        parity={"opset": 18, "ir_version": 8},
    )  # fmt: skip
    assert {key: card[key] for key in ("run", "step", "weights", "checkpoint_sha256", "classes", "trained_on")} == {
        "run": "demo", "step": 4, "weights": "ema", "checkpoint_sha256": "abc", "classes": ["a", "b", "c"],
        "trained_on": {"train": 100, "val": 200},
    }  # fmt: skip
    assert card["accuracy"] == {"split": "val", "top1": 0.75, "correct": 150, "images": 200}
    shape = ["batch", SIDE, SIDE, 3] if embed else ["batch", 3, SIDE, SIDE]
    kinds = ("pixels", "uint8", "probabilities") if embed else ("input", "float32", "logits")
    assert (card["input"]["name"], card["input"]["type"], card["output"]["meaning"]) == kinds
    assert (card["input"]["shape"], card["output"]["shape"]) == (shape, ["batch", CLASSES])
    assert (card["files"], card["refused"], card["versions"]) == (files, {"int8": "worse"}, {"torch": "2.9"})
    assert card["onnx"] == {"opset": 18, "ir_version": 8}
    assert json.loads(json.dumps(card)) == card


def test_speed_is_the_median_latency_and_the_best_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    seconds: dict[int, Iterator[float]] = {
        1: iter([9.0, 0.002, 0.010, 0.004, 0.008, 0.006]), 32: iter([9.0, 0.5, 0.1, 0.2, 0.4, 0.3])
    }  # fmt: skip
    fed: list[tuple[int, ...]] = []

    def run(_: None, feed: dict[str, Any]) -> None:
        (images,) = feed.values()
        fed.append(images.shape)
        clock.now += next(seconds[len(images)])

    session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(name="input", type="tensor(float)")], run=run)
    monkeypatch.setattr(speed, "open_session", lambda _: session)
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    assert speed.speed_of(Path("model.onnx"), 8) == {"latency_ms": 6.0, "images_per_s": 320.0}
    assert fed == [(1, 3, 8, 8)] * 6 + [(32, 3, 8, 8)] * 6, "the first call of each size allocates and is not counted"


@pytest.mark.parametrize(("splits", "expected"), [((), False), (("val",), False), (("val", "test"), True)])
def test_test_images_are_evaluated_only_after_the_run_did(
    tmp_path: Path, splits: tuple[str, ...], expected: bool
) -> None:
    assert not command._has_read_test(RunDir(tmp_path / "missing"))
    events = [Evaluated(**{**vars(evaluated(1)), "split": split}) for split in splits]
    assert command._has_read_test(write_log(tmp_path, "run", *events)) is expected


# The child process of a live run --------------------------------------------------------------------------------------


def line(event: Event) -> bytes:
    return encode(Record(seq=0, time=1.0, event=event))


EXPORTED = Exported(step=4, path="p", size_bytes=1, max_abs_diff=0.0, images=1, accuracy=0.5, split="val")
PROGRESS = ExportProgress(stage="x", fraction=0.5)
FAILED = ExportFailed(error="it is wrong")


@pytest.mark.parametrize(
    ("lines", "code", "cancelled", "published"),
    [
        ([line(PROGRESS), line(EXPORTED)], 0, False, [PROGRESS, EXPORTED]),
        ([line(PROGRESS), line(FAILED)], 1, False, [PROGRESS, FAILED]),
        ([b"a library's print\n", line(EXPORTED)], 0, False, [EXPORTED]),
        ([line(PROGRESS)], -9, False, [PROGRESS, ExportFailed(
            error="the export process ended with code -9; log.txt has its output"
        )]),
        ([], 0, False, [ExportFailed(error="the export process ended with code 0; log.txt has its output")]),
        ([line(PROGRESS)], -15, True, [PROGRESS, ExportFailed(error="stopped")]),
    ],
    ids=["exported", "refused", "printed", "killed", "silent", "cancelled"],
)  # fmt: skip
def test_each_export_of_a_live_run_publishes_its_end(
    tmp_path: Path, lines: list[bytes], code: int, cancelled: bool, published: list[Event]
) -> None:
    logged: list[Event] = []
    child = ExportChild(RunDir(tmp_path), logged.append)
    child._cancelled = cancelled
    process: Any = SimpleNamespace(stdout=iter(lines), wait=lambda: code)
    child._follow(process)
    assert logged == published


def test_no_export_is_started_without_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Event] = []
    child = ExportChild(RunDir(tmp_path), logged.append)
    monkeypatch.setattr(child, "_run", lambda step: logged.append(NoteAdded(step=step, text="started")))
    child.start(4, lambda: "the disk is full")
    assert child.wait(30)
    child.start(5, lambda: "")
    assert child.wait(30)
    assert not child.running
    assert [event for event in logged if not isinstance(event, ExportProgress)] == [
        ExportFailed(error="the disk is full"), NoteAdded(step=5, text="started")
    ]  # fmt: skip
    assert [event.stage for event in logged if isinstance(event, ExportProgress)] == ["saving step 4", "saving step 5"]
