"""The embedded digits, small CIFAR archives, devices, and initial weights."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import urllib.error
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from tests.support.progress import quiet
from trainer.config.schema import ModelConfig
from trainer.data import cifar
from trainer.data.digits import load_digits
from trainer.errors import CheckpointError, DataError, DeviceError
from trainer.host import gpu
from trainer.model import device as devices
from trainer.model import initial_weights as weights
from trainer.model.initial_weights import InitialWeights, find_initial_weights
from trainer.model.resnet import build_model, describe_model
from trainer.model.weight_loading import load_initial_weights

DIGITS = tuple("0123456789")


def test_digits_have_a_fixed_split() -> None:
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
    """A folder with a small archive, with torchvision's checksums replaced by its own."""
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
def test_an_error_without_network_names_the_archive_and_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError) as caught:
        cifar.load_cifar("cifar10", tmp_path / "data", 32, quiet)
    digest = "c58f30108f718f92721af3b95e74349a"
    for part in ("cifar-10-python.tar.gz", digest, str(tmp_path / "data"), "r18-tui digits"):
        assert part in str(caught.value)
    assert not list((tmp_path / "data").glob("*"))


def test_a_damaged_download_is_not_kept(
    small_cifar: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path_factory.mktemp("download")
    source = torchvision.datasets.CIFAR10
    archive = small_cifar / source.filename
    archive.write_bytes(archive.read_bytes()[:-100])
    monkeypatch.setattr(source, "url", archive.as_uri())
    with pytest.raises(DataError, match="the downloaded file has the wrong checksum"):
        cifar.load_cifar("cifar10", target, 32, quiet)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("wanted", ["auto", "cuda:0"])
def test_a_gpu_without_kernels_in_torch_is_reported(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    def no_kernel(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore of it")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(DeviceError, match=r"cuda:0: .* no kernel image .*\. Install .* run\.device=cpu") as caught:
        devices.choose_device(wanted)
    assert "more of it" not in str(caught.value)


def test_a_gpu_that_torch_cannot_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_requested_but_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "driver_version", lambda: None)
    with pytest.raises(DeviceError, match=r"run\.device: cuda requested, but .* or set run\.device=cpu"):
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


def state_dict(stem: str = "cifar", classes: int = 10) -> dict[str, torch.Tensor]:
    return build_model(ModelConfig.model_validate({"stem": stem}), classes, 1).state_dict()


def test_a_new_head_and_an_adapted_stem_are_reported(tmp_path: Path) -> None:
    save_file(source := state_dict("imagenet", 1000), tmp_path / "w.safetensors")
    model = build_model(ModelConfig(), 10, 0)
    report = load_initial_weights(model, find_initial_weights(str(tmp_path / "w.safetensors"), tmp_path, quiet), DIGITS)
    assert report.adapted == ["conv1.weight"]
    assert report.other_classes == ["fc.weight", "fc.bias"]
    assert str(report) == (
        "119 tensors loaded; kernel cut or padded to fit: conv1.weight; new for other classes: fc.weight, fc.bias"
    )
    assert torch.equal(model.state_dict()["conv1.weight"], source["conv1.weight"][:, :, 2:5, 2:5])


def test_a_small_stem_is_padded_for_a_large_one(tmp_path: Path) -> None:
    save_file(source := state_dict(), tmp_path / "w.safetensors")
    model = build_model(ModelConfig(stem="imagenet"), 10, 0)
    load_initial_weights(model, find_initial_weights(str(tmp_path / "w.safetensors"), tmp_path, quiet), DIGITS)
    kernel = model.state_dict()["conv1.weight"]
    assert torch.equal(kernel[:, :, 2:5, 2:5], source["conv1.weight"])
    assert int((kernel != 0).sum()) == source["conv1.weight"].numel()


def test_a_head_for_other_classes_of_the_same_number_is_not_loaded() -> None:
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


def test_files_without_a_state_dict_are_refused_without_running_code(tmp_path: Path) -> None:
    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        find_initial_weights(str(tmp_path / "evil.pt"), tmp_path, quiet)
    assert not Path("/tmp/r18-evil").exists()
    save_file({"embedding": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not a ResNet-18"):
        load_initial_weights(
            build_model(ModelConfig(), 10, 0),
            find_initial_weights(str(tmp_path / "other.safetensors"), tmp_path, quiet),
            DIGITS,
        )
    with pytest.raises(CheckpointError, match="no such file or run"):
        find_initial_weights("nowhere", tmp_path, quiet)


class Code:
    """Creates a folder when it is unpickled."""

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
    source = find_initial_weights("imagenet", tmp_path, quiet)
    assert torch.equal(source.state["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


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


def test_an_incomplete_download_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reply(io.BytesIO):
        headers: ClassVar = {"Content-Length": "1000"}

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Reply(b"x" * 400))
    with pytest.raises(CheckpointError, match="ended after 400 of 1,000 bytes"):
        find_initial_weights("imagenet", tmp_path, quiet)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_error_without_network_names_the_weights_and_their_place(
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
