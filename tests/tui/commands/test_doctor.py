"""`doctor`: checks of the machine and of a configuration."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import FolderMaker
from trainer.commands import training_checks as checks
from trainer.errors import DeviceError
from trainer.host import health
from trainer.host.health import Check
from trainer.model.initial_weights import imagenet_path
from tui.cli import main


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not use the network."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["doctor", *arguments])
    return code, capsys.readouterr().out


def test_a_machine_that_can_train_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, printed = doctor(capsys, "--runs-dir", str(tmp_path / "runs"))
    assert code == 0, printed
    for name in (
        "Python", "PyTorch", "device", "precision", "memory", "shared memory", "disk", "run folder", "network", "logout",
    ):  # fmt: skip
        assert f" {name} " in printed
    assert "warn network" in printed, "a run can start without a network"
    assert printed.endswith("\na run can start\n")
    assert not (tmp_path / "runs").exists()


def test_a_configuration_is_checked_with_its_images(
    capsys: pytest.CaptureFixture[str], make_folder: FolderMaker, tmp_path: Path
) -> None:
    root = make_folder()
    (root / "train" / "red" / "000.png").write_text("no image")
    folder = ("data.kind=imagefolder", f"data.root={root}", "data.batch_size=8", "--runs-dir", str(tmp_path))
    code, printed = doctor(capsys, "digits", *folder)
    assert code == 0, printed
    assert "35 training images in 3 classes" in printed
    assert "1 cannot be read, such as" in printed
    assert "decoded images stay in memory" in printed
    code, printed = doctor(capsys, "digits", *folder, "data.batch_size=64")
    assert code == 1
    assert "BAD  images" in printed
    assert "35 training images are fewer than data.batch_size 64; set data.batch_size to 8 or less" in printed
    assert printed.endswith("\ndigits cannot start: images\n")


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (("digits", "train.epoks=3"), "train.epoks: unknown key; did you mean train.epochs?", "docs/configuration.md"),
        (("digits", "data.kind=imagefolder", "data.root=nowhere"), "nowhere: no such folder", "r18-tui init FOLDER"),
        (("digits", "run.device=cuda:77"), "run.device: cuda:77 requested", "or train on the CPU"),
        (("cifar", "data.root=nowhere"), "cifar10: not at nowhere/cifar-10-python.tar.gz", "download it elsewhere"),
    ],
)
def test_a_problem_that_prevents_a_run_has_a_remedy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], problem: str,
    remedy: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, printed = doctor(capsys, *arguments)
    assert code == 1
    assert problem in printed
    assert f"-> {remedy}" in printed


def test_missing_imagenet_weights_are_reported_with_the_download(
    capsys: pytest.CaptureFixture[str], make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ("finetune", f"data.root={make_folder()}", "data.batch_size=8")
    code, printed = doctor(capsys, *arguments)
    assert code == 1
    assert f"ImageNet weights: not at {tmp_path}/torch/hub/checkpoints/resnet18-f37072fd.pth" in printed
    assert (
        "download it elsewhere (https://download.pytorch.org/models/resnet18-f37072fd.pth) and copy it there" in printed
    )
    weights = imagenet_path()
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert doctor(capsys, *arguments)[0] == 0


def states_of(checked: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checked}


def test_scarce_disk_memory_and_shared_memory_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Usage:
        free, total = 100 * 2**20, 2**40

    class Memory:
        available, total = 2**30, 8 * 2**30

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)
    states = states_of(list(checks.machine_checks(tmp_path)))
    assert (states["disk"], states["memory"], states["shared memory"]) == ("bad", "warning", "warning")
    Usage.free = 400 * 2**20
    assert states_of(list(checks.machine_checks(tmp_path)))["disk"] == "warning"


def test_an_unusable_device_and_an_unwritable_folder_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(wanted: str) -> None:
        raise DeviceError("a GPU is here, but torch is built without CUDA")

    def read_only(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checks, "choose_device", refused)
    monkeypatch.setattr(health, "probe", read_only)
    states = states_of(list(checks.machine_checks(tmp_path)))
    assert (states["device"], states["run folder"]) == ("bad", "bad")


def test_a_torchvision_for_another_torch_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Operators:
        @property
        def torchvision(self) -> None:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torch, "ops", Operators())
    (pytorch,) = [check for check in checks.machine_checks(tmp_path) if check.name == "PyTorch"]
    assert pytorch.state == "bad"
    assert "install both together" in pytorch.remedy
