"""The gates of smaller exports and of the contents of files: each passes a correct file and refuses a single fault."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tests.support.checkpoints import checkpoint_of
from tests.support.exported_noise import (
    CLASSES,
    MEAN,
    QUIET,
    SIDE,
    STD,
    Linear,
    images,
    make_export,
    noise_subject,
)
from trainer.data.dataset import DataSet
from trainer.errors import ExportError
from trainer.export import export_source, onnx_file, smaller_onnx
from trainer.export.export_source import ExportSource
from trainer.export.formats import FORMATS
from trainer.export.onnx_file import save_proto, write_model
from trainer.export.smaller_onnx import check_fp16, check_int8
from trainer.export.torch_files import check_safetensors, sha256_of, write_safetensors
from trainer.run.log.event import Event
from trainer.run.log.result_events import ExportProgress
from trainer.session import export_run as command


def gate(problem: str) -> dict[str, float]:
    if problem:
        raise ExportError(problem)
    return {}


@pytest.mark.parametrize("problem", ["", "it is wrong"])
@pytest.mark.parametrize("name", ["int8", "fp16", "pt2", "safetensors"])
def test_a_format_is_kept_exactly_when_its_gate_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, problem: str
) -> None:
    for other in ("int8", "fp16", "pt2", "safetensors"):
        monkeypatch.setattr(command, f"write_{other}", QUIET)
        found = problem if other == name else "another gate was asked"
        monkeypatch.setattr(command, f"check_{other}", lambda *_, found=found: gate(found))
    monkeypatch.setattr(command, "speed_of", lambda *_: {})
    published: list[Event] = []
    export = make_export(noise_subject(), tmp_path, published=published)
    export._try(name, {key: tmp_path / key for key in FORMATS}, {})
    assert export._refused == ({name: f"not written: {problem}"} if problem else {})
    assert list(export._files) == ([] if problem else [name])
    assert len([event for event in published if not isinstance(event, ExportProgress)]) == bool(problem)


class Answers:
    """Stands in for an exported file that answers the given classes, image by image."""

    def __init__(self, labels: NDArray[np.int64], broken: tuple[int, float] | None = None) -> None:
        self._probabilities = np.eye(CLASSES, dtype=np.float32)[labels]
        if broken is not None:
            self._probabilities[broken[0], 1] = broken[1]
        self._done = 0

    def probabilities(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._done += len(pixels_NHWC)
        return self._probabilities[self._done - len(pixels_NHWC) : self._done]


IMAGES = 1000


def run_gate(
    monkeypatch: pytest.MonkeyPatch, which: Callable[..., dict[str, float]], *, right: tuple[int, int], agreeing: int,
    broken: tuple[int, float] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Gate a small file against the fp32 file, for numbers of right answers of the fp32 and the small file and of agreements.

    Each file is right on its first images; agreements are reduced among the last images, where both are wrong.
    """
    one = noise_subject(held_out=IMAGES)
    truth = one.held_out.labels_N.numpy()
    before, after = right
    wrong, other = (truth + 1) % CLASSES, (truth + 2) % CLASSES
    fp32_answers = np.where(np.arange(IMAGES) < before, truth, wrong)
    small_answers = np.where(np.arange(IMAGES) < after, truth, wrong)
    agree = int((fp32_answers == small_answers).sum())
    assert agreeing <= agree <= IMAGES - abs(before - after)
    small_answers[IMAGES - (agree - agreeing) :] = other[IMAGES - (agree - agreeing) :]
    files = {"fp32": Answers(fp32_answers), "small": Answers(small_answers, broken)}
    monkeypatch.setattr(smaller_onnx, "OnnxClassifier", lambda path: files[str(path)])
    return which(one, Path("fp32"), Path("small"), QUIET)


@pytest.mark.parametrize(
    ("which", "before", "after", "agreeing", "refused"),
    [
        (check_int8, 900, 900, 1000, ""),
        (check_int8, 900, 910, 990, ""),
        (check_int8, 900, 890, 990, ""),
        (check_int8, 130, 120, 990, ""),  # 0.13 - 0.01 is more than 0.12 in floating point
        (check_int8, 900, 890, 900, ""),  # the number of agreements does not matter
        (check_int8, 900, 889, 989, "accuracy falls from 90.00% to 88.90%, by more than 1%"),
        (check_fp16, 900, 900, 1000, ""),
        (check_fp16, 900, 900, 995, ""),
        (check_fp16, 900, 900, 994, "it agrees with fp32 on 99.40% of the images, less than 99.5%"),
        (check_fp16, 900, 899, 999, ""),
        (check_fp16, 900, 899, 995, ""),
        (check_fp16, 10, 9, 999, ""),
        (check_fp16, 900, 898, 998, "accuracy falls from 90.00% to 89.80%, by more than 0.1%"),
        (check_fp16, 900, 902, 998, ""),
    ],
)
def test_smaller_files_pass_within_the_documented_limits(
    monkeypatch: pytest.MonkeyPatch,
    which: Callable[..., dict[str, float]],
    before: int,
    after: int,
    agreeing: int,
    refused: str,
) -> None:
    if refused:
        with pytest.raises(ExportError) as error:
            run_gate(monkeypatch, which, right=(before, after), agreeing=agreeing)
        assert str(error.value) == refused
        return
    found = run_gate(monkeypatch, which, right=(before, after), agreeing=agreeing)
    assert (found["correct"], found["images"]) == (after, IMAGES)
    assert (found["accuracy"], found["agreement"]) == (after / IMAGES, agreeing / IMAGES)


@pytest.mark.parametrize("which", [check_int8, check_fp16])
@pytest.mark.parametrize("row", [0, IMAGES - 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_single_non_finite_answer_is_refused(
    monkeypatch: pytest.MonkeyPatch, which: Callable[..., dict[str, float]], row: int, value: float
) -> None:
    with pytest.raises(ExportError, match="NaN or infinity"):
        run_gate(monkeypatch, which, right=(900, 900), agreeing=1000, broken=(row, value))


def spoil_value(state: dict[str, Tensor]) -> None:
    bits = state["fc.weight"].view(torch.int32)  # the least significant bit of the last number
    bits[-1, -1] ^= 1


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_value,
        lambda state: state.pop("fc.bias"),
        lambda state: state.update({"fc.more": torch.zeros(1)}),
        lambda state: state.update({"fc.bias": state["fc.bias"].flip(0)}),
        lambda state: state.update({"fc.bias": state["fc.bias"][:2]}),
    ],
    ids=["a bit", "missing tensor", "additional tensor", "order", "shape"],
)
def test_written_weights_that_differ_in_one_bit_are_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None]
) -> None:
    one, path = noise_subject(bias=(1.0, 2.0, 3.0)), tmp_path / "model.safetensors"
    write_safetensors(one, path, {"classes": "[]"})
    check_safetensors(one, path)
    state = {name: value.clone() for name, value in one.model.state_dict().items()}
    spoil(state)
    save_file(state, path)
    with pytest.raises(ExportError, match="its tensors differ from those written"):
        check_safetensors(one, path)


def test_the_hash_is_the_sha256_of_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    data = bytearray(2**20 + 2)  # more than one block of reading
    for place in (0, 2**20 - 1, 2**20, 2**20 + 1):
        data[place] ^= 1
        path.write_bytes(data)
        assert sha256_of(path) == hashlib.sha256(data).hexdigest()


def small_graph() -> Any:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


@pytest.mark.parametrize("kept", [{"a": "b"}, {"a": "b", "c": "e"}, {"a": "b", "c": "d", "f": "g"}, {}])
def test_a_file_with_missing_or_other_metadata_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: dict[str, str]
) -> None:
    target, wanted, save = tmp_path / "m.onnx", {"a": "b", "c": "d"}, onnx.save
    synced: list[bytes] = []
    monkeypatch.setattr(onnx_file, "sync", lambda _: synced.append(target.read_bytes()))
    save_proto(small_graph(), target, wanted)
    assert synced == [target.read_bytes()], "synced after the last write"

    def losing(proto: Any, path: str) -> None:
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, kept)
        save(proto, path)

    monkeypatch.setattr(onnx, "save", losing)
    with pytest.raises(ExportError, match="the metadata was lost in writing"):
        save_proto(small_graph(), target, wanted)


def test_an_invalid_graph_is_not_written(tmp_path: Path) -> None:
    proto = small_graph()
    proto.graph.node[0].input[0] = "z"
    with pytest.raises(onnx.checker.ValidationError):
        save_proto(proto, tmp_path / "m.onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_returns_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    with pytest.raises(ExportError, match="PyTorch's ONNX exporter returned nothing"):
        write_model(noise_subject(), tmp_path / "m.onnx", {}, optimize=True)


@pytest.mark.parametrize(
    ("version", "passes"), [("2.8.1", False), ("2.9.0", True), ("2.10.0+cpu", True), ("1.13.0", False), ("3.0.0", True)]
)
def test_torch_must_be_new_enough(monkeypatch: pytest.MonkeyPatch, version: str, passes: bool) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    if passes:
        return command._require_torch()
    with pytest.raises(ExportError, match=r"needs torch 2\.9 or newer"):
        command._require_torch()
    return None


@pytest.mark.parametrize(
    ("classes", "tested", "split"),
    [
        (["a", "b", "c"], True, "test"), (["a", "b", "c"], False, "val"), (["b", "a", "c"], True, None),
        (["a", "b"], True, None), (["a", "b", "d"], True, None),
    ],
)  # fmt: skip
def test_an_export_needs_the_runs_classes_and_reads_test_only_after_the_run_did(
    monkeypatch: pytest.MonkeyPatch, classes: list[str], tested: bool, split: str | None
) -> None:
    one = noise_subject()
    data = DataSet(
        name="noise", classes=("a", "b", "c"), splits={"val": images(3, 0), "test": images(3, 1)}, fingerprint="f",
        identity={}, preprocess={},
    )  # fmt: skip
    monkeypatch.setattr(export_source, "load_held_out", lambda *_: data)
    monkeypatch.setattr(
        export_source, "build_model", lambda *_: Linear(torch.zeros(3, SIDE * SIDE * 3), torch.zeros(3))
    )
    record = {
        "classes": classes, "selection_split": "val", "mean": MEAN, "std": STD, "preprocess": {}, "fingerprint": "f"
    }  # fmt: skip
    tensors = {f"model.{name}": value for name, value in one.model.state_dict().items()}

    def build(**others: str) -> ExportSource:
        return ExportSource.of(
            checkpoint_of(tensors, **(record | others)), one.config, QUIET, tested=tested, embed=False
        )

    if split is None:
        with pytest.raises(ExportError, match="its classes differ from those the run was trained on"):
            build()
        return
    source = build()
    assert (source.split, source.same_data, build(fingerprint="g").same_data) == (split, True, False)
    assert torch.equal(source.model.state_dict()["fc.weight"], one.model.state_dict()["fc.weight"])
    assert not source.model.training
