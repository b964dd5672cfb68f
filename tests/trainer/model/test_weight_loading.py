"""Initial weights from files, compared with torchvision's state dicts: which are found, loaded and refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from tests.support.progress import quiet
from trainer.config.schema import ModelConfig
from trainer.errors import CheckpointError
from trainer.evaluation.classifier import open_classifier
from trainer.model.initial_weights import InitialWeights, find_initial_weights
from trainer.model.resnet import build_model
from trainer.model.versions import torch_release
from trainer.model.weight_loading import LoadReport, load_initial_weights

pytestmark = pytest.mark.usefixtures("narrow_network")

DIGITS = tuple("0123456789")

reads_pickles = pytest.mark.skipif(torch_release() < (2, 10), reason="older torch reads no foreign pickles")

PREFIXES = (
    "", "module.", "model.", "model._orig_mod.", "_orig_mod.module.", "model.module.", "module.model.", "net.", "backbone.",
    "encoder.", "a.b.c.d.", "layer1.", "fc.", "_fsdp_wrapped_module._checkpoint_wrapped_module.", "conv1.",
)  # fmt: skip


def loaded_from(source: Any, tmp_path: Path, classes: tuple[str, ...] = DIGITS) -> tuple[LoadReport, dict[str, Any]]:
    """Save and load weights; returns the report and the model's tensors."""
    torch.save(source, tmp_path / "w.pt")
    return into_model(find_initial_weights(str(tmp_path / "w.pt"), tmp_path, quiet), classes)


@pytest.fixture
def saved_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep saved weights in memory, since files take time."""
    saved: list[Any] = []

    def save(source: Any, path: Path) -> None:
        path.touch()
        saved.append(source)

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(torch, "load", lambda *_, **__: saved.pop())


def into_model(weights: InitialWeights, classes: tuple[str, ...] = DIGITS) -> tuple[LoadReport, dict[str, Any]]:
    model = build_model(ModelConfig(stem="imagenet"), len(classes), 0)
    return load_initial_weights(model, weights, classes), model.state_dict()


@reads_pickles
@pytest.mark.usefixtures("saved_in_memory")
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("outer", [(), ("state_dict",), ("ema", "shadow", "x")])
def test_a_state_dict_is_found_under_any_prefix(tmp_path: Path, prefix: str, outer: tuple[str, ...]) -> None:
    source = torchvision.models.resnet18(num_classes=10).state_dict()
    wrapped: dict[str, Any] = {f"{prefix}{name}": value for name, value in source.items()}
    for key in reversed(outer):
        wrapped = {"epoch": 3, key: wrapped, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}}
    report, own = loaded_from(wrapped, tmp_path)
    assert len(report.loaded) == 120
    assert report.unknown_classes == ["fc.weight", "fc.bias"], "a file without class names"
    assert not report.missing + report.reshaped + report.unused
    assert all(torch.equal(own[name], source[name]) for name in report.loaded)


@reads_pickles
def test_wrappers_within_names_and_self_references_are_resolved(tmp_path: Path) -> None:
    source = torchvision.models.resnet18(num_classes=10).state_dict()
    wrapped: dict[str, Any] = {name.replace("layer2.", "layer2._orig_mod."): value for name, value in source.items()}
    wrapped["_self"] = wrapped
    report, _ = loaded_from(wrapped | {"layer1.0.total_ops": torch.zeros(1)}, tmp_path)
    assert len(report.loaded) == 120
    assert report.unused == ["layer1.0.total_ops"]


@reads_pickles
@pytest.mark.parametrize(
    ("keys", "taken"), [(("a", "b"), "a."), (("model", "model_ema"), "model_ema."), (("ema", "x"), "ema.")]
)
def test_an_average_or_the_first_of_two_networks_is_loaded(tmp_path: Path, keys: tuple[str, str], taken: str) -> None:
    source = {key: torchvision.models.resnet18(num_classes=10).state_dict() for key in keys}
    report, own = loaded_from(source, tmp_path)
    assert (report.prefix, report.ignored_prefixes) == (taken, [f"{key}." for key in keys if f"{key}." != taken])
    assert torch.equal(own["conv1.weight"], source[taken[:-1]]["conv1.weight"])
    assert str(report).startswith(f"120 tensors loaded from {taken}*; ")


def resnet() -> dict[str, torch.Tensor]:
    """Random weights for ten classes."""
    state: dict[str, torch.Tensor] = torchvision.models.resnet18(num_classes=10).state_dict()
    return state


@reads_pickles
@pytest.mark.parametrize(
    ("wrap", "taken"),
    [
        (lambda a, b: {**a, **{f"_orig_mod.{key}": value for key, value in b.items()}}, ""),
        (lambda a, b: {**{f"_orig_mod.{key}": value for key, value in a.items()}, **b}, "_orig_mod."),
        (lambda a, b: {"_student": a, "_teacher": b}, "_student."),
        (lambda a, b: {"net": {"_x": a, "_y": {"_x": b}}}, "net._x."),
        (lambda a, b: {"model": b, "_ema": a}, "_ema."),
        (lambda a, b: {"conv1.weight": b["conv1.weight"], "_orig_mod": a}, "_orig_mod."),
    ],
)
def test_networks_in_wrappers_are_distinguished(tmp_path: Path, wrap: Any, taken: str) -> None:
    wanted = resnet()
    report, own = loaded_from(wrap(wanted, resnet()), tmp_path)
    assert report.prefix == taken
    assert all(torch.equal(own[name], wanted[name]) for name in report.loaded)
    assert len(report.loaded) == 120


@reads_pickles
def test_two_tensors_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds two tensors named conv1\.weight"):
        loaded_from(resnet() | {"conv1": {"weight": torch.zeros(64, 3, 7, 7)}}, tmp_path)


@reads_pickles
def test_tensors_without_values_or_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"conv1\.weight has a shape but no values"):
        loaded_from({name: value.to("meta") for name, value in resnet().items()}, tmp_path)
    with pytest.raises(CheckpointError, match=r"bn1\.running_var has a shape but no values"):
        loaded_from(resnet() | {"bn1.running_var": torch.ones(64, device="meta")}, tmp_path)
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(CheckpointError, match=r"it has no conv1\.weight"):
        loaded_from(resnet() | {"conv1.weight": nested}, tmp_path)
    assert len(loaded_from(resnet() | {"queue": nested}, tmp_path)[0].loaded) == 120


LIKE = {
    b"": "the file is empty", bytes(2000): "a file of zeros", b"<!doctype html><p>404": "an HTML page",
    b"version https://git-lfs.github.com/spec/v1": "a git-LFS pointer", b'{"classes": []}': "a JSON file",
    b"PK\x03\x04cut off": "a truncated PyTorch file or ZIP archive", b"\x89PNG": "a damaged PNG file",
    b"\xfe\xfd\xfc": "an unknown kind of file",
}  # fmt: skip


@reads_pickles
@pytest.mark.parametrize("content", LIKE)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx", ""])
def test_a_file_without_weights_is_refused_with_its_kind(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(LIKE[content])):
        find_initial_weights(str(path), tmp_path, quiet)
    with pytest.raises(CheckpointError, match=re.escape(LIKE[content])):
        open_classifier(str(path), runs_dir=tmp_path, which="default", device="cpu")


@reads_pickles
def test_models_of_other_formats_are_refused_with_their_kind(tmp_path: Path) -> None:
    program = torch.export.export(nn.ReLU(), (torch.zeros(2),))
    torch.export.save(program, tmp_path / "w.pt2")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), tmp_path / "w.onnx")
    save_file(resnet(), tmp_path / "w.bin")
    kinds = {"w.pt2": "an exported PyTorch program", "w.onnx": "an ONNX file", "w.bin": "a safetensors"}
    for name, kind in kinds.items():
        with pytest.raises(CheckpointError, match=f"holds no readable weights: it is {kind}"):
            find_initial_weights(str(tmp_path / name), tmp_path, quiet)
    with pytest.raises(CheckpointError, match="damaged, or no checkpoint: it is an exported PyTorch program"):
        open_classifier(str(tmp_path / "w.pt2"), runs_dir=tmp_path, which="default", device="cpu")
    torch.save(nn.ReLU(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="whole pickled models are refused"):
        find_initial_weights(str(tmp_path / "w.pth"), tmp_path, quiet)


@pytest.mark.whole_network
@reads_pickles
@pytest.mark.usefixtures("saved_in_memory")
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet34", "layer1.2.conv1.weight, of shape (64, 64, 3, 3), does not belong to one"),
        ("resnet50", "layer1.0.conv1.weight is float32 of shape (64, 64, 1, 1), expected (64, 64, 3, 3)"),
        ("wide_resnet50_2", "layer1.0.conv1.weight is float32 of shape (128, 64, 1, 1)"),
        ("squeezenet1_1", "none of its 52 tensors has the name of one of its kernels"),
        ("densenet121", "none of its"),
        ("regnet_y_400mf", "none of its"),
    ],
)
def test_another_network_is_refused_with_the_first_tensor_that_does_not_fit(
    tmp_path: Path, name: str, first: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape("is not a ResNet-18: ") + f".*{re.escape(first)}"):
        loaded_from({"state_dict": getattr(torchvision.models, name)(num_classes=10).state_dict()}, tmp_path)


KERNELS = [name for name in torchvision.models.resnet18().state_dict() if name.endswith("weight") and name[0] in "cl"]
KERNELS = [name for name in KERNELS if ".bn" not in name and "downsample.1" not in name]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("change", ["missing", "shape", "int8", "sparse"])
def test_every_kernel_must_fit(name: str, change: str) -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict()
    kernel = state.pop(name)
    changed = {"shape": kernel[:-1], "int8": kernel.to(torch.int8), "sparse": kernel.to_sparse()}
    if change != "missing":
        state[name] = changed[change]
    with pytest.raises(CheckpointError, match=rf"is not a ResNet-18: .*\b{re.escape(name)}\b"):
        into_model(InitialWeights(state, "a file"))


@pytest.mark.whole_network
@pytest.mark.parametrize(
    ("side", "fits"), [(1, True), (3, True), (5, True), (7, True), (11, True), (4, False), (8, False)]
)
def test_a_stem_kernel_of_odd_size_is_adapted(side: int, fits: bool) -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict() | {"conv1.weight": torch.ones(64, 3, side, side)}
    if not fits:
        with pytest.raises(CheckpointError, match=r"conv1\.weight is float32 of shape"):
            into_model(InitialWeights(state, "a file"))
        return
    report, own = into_model(InitialWeights(state, "a file"))
    assert report.adapted == (["conv1.weight"] if side != 7 else [])
    assert float(own["conv1.weight"].sum()) == 64 * 3 * min(side, 7) ** 2


@pytest.mark.parametrize("value", [float("nan"), -float("inf"), 1e300])
@pytest.mark.parametrize(
    "name", ["conv1.weight", "layer3.0.conv1.weight", "bn1.running_mean", "layer4.1.bn2.bias", "fc.weight"]
)
def test_a_non_finite_value_is_refused_with_its_tensor(name: str, value: float) -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict()
    state[name] = state[name].double().index_fill(0, torch.tensor(0), value)
    before = build_model(ModelConfig(stem="imagenet"), 10, 0)
    model = build_model(ModelConfig(stem="imagenet"), 10, 0)
    source = InitialWeights({f"net.{key}": tensor for key, tensor in state.items()}, "a file")
    with pytest.raises(CheckpointError, match=rf"a file: net\.{re.escape(name)} contains NaN or infinity"):
        load_initial_weights(model, source, DIGITS)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("named", "becomes"),
    [
        (DIGITS, "loaded"), (DIGITS[::-1], "other_classes"), ((*DIGITS[:8], "9", "8"), "other_classes"),
        ((*DIGITS[:9], "x"), "other_classes"), (None, "unknown_classes"),
    ],
)  # fmt: skip
def test_the_classifier_is_loaded_only_for_the_same_classes_in_the_same_order(
    named: tuple[str, ...] | None, becomes: str
) -> None:
    source = resnet()
    report, own = into_model(InitialWeights(source, "a file", classes=named))
    for field in ("loaded", "other_classes", "unknown_classes", "reshaped", "missing"):
        assert [name for name in getattr(report, field) if name.startswith("fc.")] == (
            ["fc.weight", "fc.bias"] if field == becomes else []
        )
    assert torch.equal(own["fc.weight"], source["fc.weight"]) is (becomes == "loaded")
    assert len(report.loaded) == (122 if becomes == "loaded" else 120)


@pytest.mark.parametrize(
    "name", ["conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.bn2.running_var", "fc.bias"]
)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_single_non_finite_value_at_the_end_of_a_tensor_is_refused(name: str, value: float) -> None:
    state = resnet()
    state[name].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} contains NaN or infinity"):
        into_model(InitialWeights(state, "a file"))


def test_a_negative_variance_is_refused() -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict()
    state["layer1.0.bn1.running_var"][3] = -0.1
    with pytest.raises(CheckpointError, match=r"layer1\.0\.bn1\.running_var contains a negative variance"):
        into_model(InitialWeights(state, "a file"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype) -> None:
    source = torchvision.models.resnet18(num_classes=10).to(dtype).state_dict()
    _, own = into_model(InitialWeights(source, "a file"))
    assert torch.equal(own["layer4.1.conv2.weight"], source["layer4.1.conv2.weight"].float())


@pytest.mark.parametrize(
    ("header", "head", "known"),
    [
        ({"classes": json.dumps(DIGITS), "preprocess": '{"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}'}, True, True),
        ({"classes": json.dumps(DIGITS)}, True, False),
        ({"classes": json.dumps(DIGITS[::-1])}, False, False),
        ({"classes": "cat, dog", "preprocess": "resize"}, False, False),
        ({"classes": '"0123456789"', "preprocess": "{}"}, False, False),
        ({"classes": "[" * 100_000}, False, False),
        ({"preprocess": json.dumps({"mean": "auto", "std": "auto"})}, False, False),
        ({"classes": "7", "preprocess": "[]"}, False, False),
        ({"preprocess": json.dumps({"mean": [0.1], "std": [0, 0, 0]})}, False, False),
        ({}, False, False),
    ],
)  # fmt: skip
def test_classes_and_statistics_are_read_from_an_exported_file(
    tmp_path: Path, header: dict[str, str], head: bool, known: bool
) -> None:
    save_file(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "w.safetensors", metadata=header)
    weights = find_initial_weights(str(tmp_path / "w.safetensors"), tmp_path, quiet)
    assert weights.statistics == (([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]) if known else None)
    assert ("fc.weight" in into_model(weights)[0].loaded) is head
