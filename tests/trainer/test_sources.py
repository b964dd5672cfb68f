"""The embedded digits, the CIFAR archives (made small here), devices, and weights from elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import tarfile
import urllib.error
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from trainer import device as devices
from trainer import gpu, weights
from trainer.config import ModelConfig
from trainer.data import cifar
from trainer.data.digits import load_digits
from trainer.errors import CheckpointError, DataError, DeviceError
from trainer.model import build_model, describe_model
from trainer.versions import torch_release
from trainer.weight_loading import LoadReport, load_initial_weights
from trainer.weights import InitialWeights, find_initial_weights

DIGITS = tuple("0123456789")


def quiet(_detail: str, _fraction: float | None) -> None:
    """Progress that nobody watches."""


def test_digits_are_split_once_and_for_all() -> None:
    data = load_digits(32)
    train, test = data.splits["train"], data.splits["test"]
    assert (len(train), len(test), len(data.classes)) == (1437, 360, 10)
    assert torch.bincount(test.labels_N).tolist() == [36, 37, 36, 37, 37, 36, 36, 35, 34, 36]
    pixels = test.pixels(range(360))
    assert pixels.shape == (360, 32, 32, 3)
    assert pixels.dtype == torch.uint8
    assert load_digits(16).fingerprint == data.fingerprint


def write_archive(root: Path, per_batch: int = 4) -> None:
    """A CIFAR-10 archive with a few random images, in the original's format."""
    noise = np.random.default_rng(0)
    meta = {"label_names": [f"class{n}" for n in range(10)]}
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]:
            batch: dict[str, Any] = meta
            if name != "batches.meta":
                pixels = noise.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
                batch = {"data": pixels, "labels": [n % 10 for n in range(per_batch)]}
            content = pickle.dumps(batch)
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a small archive, with torchvision's checksums replaced by those of the small one."""
    write_archive(tmp_path)
    source = torchvision.datasets.CIFAR10
    digest = hashlib.md5((tmp_path / source.filename).read_bytes()).hexdigest()  # noqa: S324 - torchvision's own check
    monkeypatch.setattr(source, "tgz_md5", digest)
    with tarfile.open(tmp_path / source.filename) as archive:
        sums = {Path(m.name).name: hashlib.md5(archive.extractfile(m).read()).hexdigest() for m in archive}  # type: ignore[union-attr] # noqa: S324
    monkeypatch.setattr(source, "train_list", [[f"data_batch_{n}", sums[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(source, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(source, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]})
    return tmp_path


def test_cifar_is_read_from_its_archive(small_cifar: Path) -> None:
    data = cifar.load_cifar("cifar10", small_cifar, 32, quiet)
    assert (len(data.splits["train"]), len(data.splits["test"])) == (20, 4)
    assert data.classes[3] == "class3"
    assert cifar.load_cifar("cifar10", small_cifar, 32, quiet).fingerprint == data.fingerprint
    assert cifar.load_cifar("cifar10", small_cifar, 16, quiet).splits["test"].pixels([0]).shape == (1, 16, 16, 3)


def test_cifar_is_downloaded_with_progress(
    small_cifar: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path_factory.mktemp("download")
    source = torchvision.datasets.CIFAR10
    monkeypatch.setattr(source, "url", (small_cifar / source.filename).as_uri())
    seen: list[tuple[str, float | None]] = []
    cifar.load_cifar("cifar10", target, 32, lambda detail, fraction: seen.append((detail, fraction)))
    downloads = [entry for entry in seen if entry[0].startswith("downloading")]
    assert downloads[-1][1] == 1.0
    assert not list(target.glob("*.part"))


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route to host"), TimeoutError("timed out"), ConnectionResetError("reset")]
)
def test_without_a_network_the_archive_its_place_and_the_digits_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError) as caught:
        cifar.load_cifar("cifar10", tmp_path / "data", 32, quiet)
    for part in (
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        str(tmp_path / "data"),
        "r18-tui digits",
    ):
        assert part in str(caught.value)
    assert not list((tmp_path / "data").glob("*"))


def test_a_download_that_is_damaged_is_not_kept(
    small_cifar: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path_factory.mktemp("download")
    source = torchvision.datasets.CIFAR10
    archive = small_cifar / source.filename
    archive.write_bytes(archive.read_bytes()[:-100])
    monkeypatch.setattr(source, "url", archive.as_uri())
    with pytest.raises(DataError, match="does not have the archive's checksum"):
        cifar.load_cifar("cifar10", target, 32, quiet)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("wanted", ["auto", "cuda:0"])
def test_a_gpu_without_kernels_in_this_torch_is_named(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    def no_kernel(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore of it")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(DeviceError, match=r"cuda:0: .* no kernel image .*\. Install .* run\.device=cpu") as caught:
        devices.choose_device(wanted)
    assert "more of it" not in str(caught.value)


def test_a_gpu_that_torch_cannot_use_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "gpu_present", lambda: True)
    monkeypatch.setattr(devices, "driver_version", lambda: "470.01")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DeviceError) as caught:
        devices.choose_device("auto")
    for part in ("driver 470.01", "CUDA 13.0", "update the driver", "run.device=cpu"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2
    assert devices.choose_device("cpu").type == "cpu"


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "driver_version", lambda: None)
    with pytest.raises(DeviceError, match=r"run\.device: cuda asked for, but .* or set run\.device=cpu"):
        devices.choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="built without CUDA"):
        devices.choose_device("cuda:1")


def test_device_files_reveal_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver_version", lambda: None)
    assert not gpu.gpu_present(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert gpu.gpu_present(tmp_path)


@pytest.mark.parametrize(
    ("stem", "parameters"), [("cifar", 11_173_962), ("cifar-maxpool", 11_173_962), ("imagenet", 11_181_642)]
)
def test_stems_have_the_published_sizes(stem: str, parameters: int) -> None:
    model = build_model(ModelConfig.model_validate({"stem": stem}), 10, 0)
    assert describe_model(model, stem)["parameters"] == parameters
    size = {"cifar": 32, "cifar-maxpool": 16, "imagenet": 8}[stem]
    children = dict(model.named_children())
    features = torch.nn.Sequential(*(children[name] for name in ("conv1", "bn1", "relu", "maxpool")))(
        torch.zeros(1, 3, 32, 32)
    )
    assert features.shape == (1, 64, size, size)


reads_pickles = pytest.mark.skipif(torch_release() < (2, 10), reason="older torch reads no foreign pickles")


def state_dict(stem: str = "cifar", classes: int = 10) -> dict[str, torch.Tensor]:
    return build_model(ModelConfig.model_validate({"stem": stem}), classes, 1).state_dict()


PREFIXES = (
    "", "module.", "model.", "model._orig_mod.", "_orig_mod.module.", "model.module.", "module.model.", "net.", "backbone.",
    "encoder.", "a.b.c.d.", "layer1.", "fc.", "_fsdp_wrapped_module._checkpoint_wrapped_module.", "conv1.",
)  # fmt: skip


def loaded_from(source: Any, tmp_path: Path, classes: tuple[str, ...] = DIGITS) -> tuple[LoadReport, dict[str, Any]]:
    """A report of what is taken over from a file, and the model's tensors."""
    torch.save(source, tmp_path / "w.pt")
    return into_model(find_initial_weights(str(tmp_path / "w.pt"), tmp_path, quiet), classes)


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """For many of them: files take time."""
    saved: list[Any] = []

    def save(source: Any, path: Path) -> None:
        path.touch()
        saved.append(source)

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(torch, "load", lambda *_, **__: saved.pop())


def into_model(found: InitialWeights, classes: tuple[str, ...] = DIGITS) -> tuple[LoadReport, dict[str, Any]]:
    model = build_model(ModelConfig(stem="imagenet"), len(classes), 0)
    return load_initial_weights(model, found, classes), model.state_dict()


@reads_pickles
@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("outer", [(), ("state_dict",), ("ema", "shadow", "x")])
def test_a_state_dict_is_found_behind_any_prefix(tmp_path: Path, prefix: str, outer: tuple[str, ...]) -> None:
    source = torchvision.models.resnet18(num_classes=10).state_dict()
    wrapped: dict[str, Any] = {f"{prefix}{name}": value for name, value in source.items()}
    for key in reversed(outer):
        wrapped = {"epoch": 3, key: wrapped, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}}
    report, own = loaded_from(wrapped, tmp_path)
    assert len(report.loaded) == 120
    assert report.unknown_classes == ["fc.weight", "fc.bias"], "who knows which ten"
    assert not report.missing + report.reshaped + report.unused
    assert all(torch.equal(own[name], source[name]) for name in report.loaded)


@reads_pickles
def test_wrappers_amid_the_names_and_a_dict_that_holds_itself(tmp_path: Path) -> None:
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
def test_of_two_networks_an_average_or_the_first_is_taken(tmp_path: Path, keys: tuple[str, str], taken: str) -> None:
    source = {key: torchvision.models.resnet18(num_classes=10).state_dict() for key in keys}
    report, own = loaded_from(source, tmp_path)
    assert (report.prefix, report.passed_over) == (taken, [f"{key}." for key in keys if f"{key}." != taken])
    assert torch.equal(own["conv1.weight"], source[taken[:-1]]["conv1.weight"])
    assert str(report).startswith(f"120 tensors taken over from {taken}*; ")


@reads_pickles
@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet34", "layer1.2.conv1.weight, of shape (64, 64, 3, 3), has no place in one"),
        ("resnet50", "layer1.0.conv1.weight is float32 of shape (64, 64, 1, 1), expected (64, 64, 3, 3)"),
        ("wide_resnet50_2", "layer1.0.conv1.weight is float32 of shape (128, 64, 1, 1)"),
        ("squeezenet1_1", "none of its 52 tensors is named as a kernel"),
        ("densenet121", "none of its"),
        ("regnet_y_400mf", "none of its"),
    ],
)
def test_another_network_is_refused_with_the_first_tensor_that_does_not_fit(
    tmp_path: Path, name: str, first: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape("holds no ResNet-18: ") + f".*{re.escape(first)}"):
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
    with pytest.raises(CheckpointError, match=rf"holds no ResNet-18: .*\b{re.escape(name)}\b"):
        into_model(InitialWeights(state, "a file"))


@pytest.mark.parametrize(
    ("side", "fits"), [(1, True), (3, True), (5, True), (7, True), (11, True), (4, False), (8, False)]
)
def test_a_stem_of_odd_side_is_fitted(side: int, fits: bool) -> None:
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
def test_a_value_that_is_not_finite_is_refused_with_its_tensor(name: str, value: float) -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict()
    state[name] = state[name].double().index_fill(0, torch.tensor(0), value)
    before = build_model(ModelConfig(stem="imagenet"), 10, 0)
    model = build_model(ModelConfig(stem="imagenet"), 10, 0)
    source = InitialWeights({f"net.{key}": tensor for key, tensor in state.items()}, "a file")
    with pytest.raises(CheckpointError, match=rf"a file: net\.{re.escape(name)} holds values that are not finite"):
        load_initial_weights(model, source, DIGITS)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )


def test_a_variance_below_0_is_refused() -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict()
    state["layer1.0.bn1.running_var"][3] = -0.1
    with pytest.raises(CheckpointError, match=r"layer1\.0\.bn1\.running_var holds a variance below 0"):
        into_model(InitialWeights(state, "a file"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_over(dtype: torch.dtype) -> None:
    source = torchvision.models.resnet18(num_classes=10).to(dtype).state_dict()
    _, own = into_model(InitialWeights(source, "a file"))
    assert torch.equal(own["layer4.1.conv2.weight"], source["layer4.1.conv2.weight"].float())


@pytest.mark.parametrize(
    ("header", "head", "known"),
    [
        (
            {
                "classes": json.dumps(DIGITS),
                "preprocess": json.dumps({"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}),
            },
            True,
            True,
        ),
        ({"classes": json.dumps(DIGITS)}, True, False),
        ({"classes": json.dumps(DIGITS[::-1])}, False, False),
        ({"classes": "cat, dog", "preprocess": "resize"}, False, False),
        ({"classes": "7", "preprocess": "[]"}, False, False),
        ({"preprocess": json.dumps({"mean": [0.1], "std": [0, 0, 0]})}, False, False),
        ({}, False, False),
    ],
)
def test_an_export_names_its_classes_and_statistics(
    tmp_path: Path, header: dict[str, str], head: bool, known: bool
) -> None:
    save_file(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "w.safetensors", metadata=header)
    found = find_initial_weights(str(tmp_path / "w.safetensors"), tmp_path, quiet)
    assert found.statistics == (([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]) if known else None)
    assert ("fc.weight" in into_model(found)[0].loaded) is head


def test_another_head_starts_anew_another_stem_is_fitted_and_both_are_listed(tmp_path: Path) -> None:
    save_file(source := state_dict("imagenet", 1000), tmp_path / "w.safetensors")
    model = build_model(ModelConfig(), 10, 0)
    report = load_initial_weights(model, find_initial_weights(str(tmp_path / "w.safetensors"), tmp_path, quiet), DIGITS)
    assert report.adapted == ["conv1.weight"]
    assert report.other_classes == ["fc.weight", "fc.bias"]
    assert str(report) == (
        "119 tensors taken over; kernel cut or padded to fit: conv1.weight; new for other classes: fc.weight, fc.bias"
    )
    assert torch.equal(model.state_dict()["conv1.weight"], source["conv1.weight"][:, :, 2:5, 2:5])


def test_a_small_stem_is_padded_for_a_large_one(tmp_path: Path) -> None:
    save_file(source := state_dict(), tmp_path / "w.safetensors")
    model = build_model(ModelConfig(stem="imagenet"), 10, 0)
    load_initial_weights(model, find_initial_weights(str(tmp_path / "w.safetensors"), tmp_path, quiet), DIGITS)
    kernel = model.state_dict()["conv1.weight"]
    assert torch.equal(kernel[:, :, 2:5, 2:5], source["conv1.weight"])
    assert int((kernel != 0).sum()) == source["conv1.weight"].numel()


def test_a_head_for_as_many_other_classes_is_not_taken_over() -> None:
    """Ten digits are not ten animals, though the shapes agree."""
    model = build_model(ModelConfig(), 10, 0)
    before = model.state_dict()["fc.weight"].clone()
    source = InitialWeights(state_dict(), "a run", None, tuple(f"animal {n}" for n in range(10)))
    report = load_initial_weights(model, source, DIGITS)
    assert report.other_classes == ["fc.weight", "fc.bias"]
    assert torch.equal(model.state_dict()["fc.weight"], before)
    same = load_initial_weights(model, InitialWeights(state_dict(), "a run", None, DIGITS), DIGITS)
    assert len(same.loaded) == 122


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/r18-evil"),))


def test_what_is_no_state_dict_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        find_initial_weights(str(tmp_path / "evil.pt"), tmp_path, quiet)
    assert not Path("/tmp/r18-evil").exists()
    save_file({"embedding": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no ResNet-18"):
        load_initial_weights(
            build_model(ModelConfig(), 10, 0),
            find_initial_weights(str(tmp_path / "other.safetensors"), tmp_path, quiet),
            DIGITS,
        )
    with pytest.raises(CheckpointError, match="no such file or run"):
        find_initial_weights("nowhere", tmp_path, quiet)


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_foreign_file_does_not_run(tmp_path: Path) -> None:
    torch.save(state_dict() | {"fc.bias": Code(tmp_path / "it ran")}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError):
        find_initial_weights(str(tmp_path / "w.pt"), tmp_path, quiet)
    assert not (tmp_path / "it ran").exists()


def test_foreign_pickles_are_refused_below_torch_2_10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(CheckpointError, match="CVE-2026-24747"):
        find_initial_weights(str(tmp_path / "w.pt"), tmp_path, quiet)


def test_imagenet_weights_are_checked_by_their_full_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="SHA-256 is"):
        find_initial_weights("imagenet", tmp_path, quiet)
    monkeypatch.setattr(weights, "IMAGENET_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    found = find_initial_weights("imagenet", tmp_path, quiet)
    assert torch.equal(found.state["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_imagenet_weights_are_downloaded_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), source)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "IMAGENET_URL", source.as_uri().replace("source", "./source"))
    monkeypatch.setattr(weights, "IMAGENET_SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    seen: list[tuple[str, float | None]] = []
    find_initial_weights("imagenet", tmp_path, lambda detail, share: seen.append((detail, share)))
    shares = [share for detail, share in seen if detail.startswith("downloading source")]
    assert shares == sorted(shares, key=lambda share: share or 0)
    assert len(shares) > 10
    assert shares[-1] == 1.0
    assert [path.name for path in (tmp_path / "hub" / "checkpoints").iterdir()] == ["source.pth"]


def test_a_download_that_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reply(io.BytesIO):
        headers: ClassVar = {"Content-Length": "1000"}

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Reply(b"x" * 400))
    with pytest.raises(CheckpointError, match="ended after 400 of 1,000 bytes"):
        find_initial_weights("imagenet", tmp_path, quiet)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_without_a_network_the_weights_file_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(CheckpointError) as caught:
        find_initial_weights("imagenet", tmp_path, quiet)
    for part in ("resnet18-f37072fd.pth", weights.IMAGENET_SHA256, str(tmp_path / "checkpoints")):
        assert part in str(caught.value)
