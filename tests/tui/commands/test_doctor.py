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
    """Tests ask nobody."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["doctor", *arguments])
    return code, capsys.readouterr().out


def test_a_machine_that_can_train_is_said_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = doctor(capsys, "--runs-dir", str(tmp_path / "runs"))
    assert code == 0, said
    for name in (
        "Python",
        "PyTorch",
        "device",
        "precision",
        "memory",
        "shared memory",
        "disk",
        "run folder",
        "network",
        "logout",
    ):
        assert f" {name} " in said
    assert "warn network" in said, "without a network a run can start all the same"
    assert said.endswith("\na run can start\n")
    assert not (tmp_path / "runs").exists()


def test_a_configuration_is_looked_at_with_its_images(
    capsys: pytest.CaptureFixture[str], make_folder: FolderMaker, tmp_path: Path
) -> None:
    root = make_folder()
    (root / "train" / "red" / "000.png").write_text("no image")
    folder = ("data.kind=imagefolder", f"data.root={root}", "data.batch_size=8", "--runs-dir", str(tmp_path))
    code, said = doctor(capsys, "digits", *folder)
    assert code == 0, said
    assert "35 training images in 3 classes" in said
    assert "1 cannot be read, such as" in said
    assert "decoded images stay in memory" in said
    code, said = doctor(capsys, "digits", *folder, "data.batch_size=64")
    assert code == 1
    assert "BAD  images" in said
    assert "35 training images are fewer than data.batch_size 64; set data.batch_size to 8 or less" in said
    assert said.endswith("\ndigits cannot start: images\n")


@pytest.mark.parametrize(
    ("arguments", "found", "remedy"),
    [
        (("digits", "train.epoks=3"), "train.epoks: unknown key; did you mean train.epochs?", "docs/configuration.md"),
        (("digits", "data.kind=imagefolder", "data.root=nowhere"), "nowhere: no such folder", "r18-tui init FOLDER"),
        (("digits", "run.device=cuda:77"), "run.device: cuda:77 requested", "or train on the CPU"),
        (("cifar", "data.root=nowhere"), "cifar10: not at nowhere/cifar-10-python.tar.gz", "download it elsewhere"),
    ],
)
def test_what_keeps_a_run_from_starting_has_a_remedy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], found: str,
    remedy: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, said = doctor(capsys, *arguments)
    assert code == 1
    assert found in said
    assert f"-> {remedy}" in said


def test_weights_that_must_be_downloaded_are_asked_for(
    capsys: pytest.CaptureFixture[str], make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ("finetune", f"data.root={make_folder()}", "data.batch_size=8")
    code, said = doctor(capsys, *arguments)
    assert code == 1
    assert f"ImageNet weights: not at {tmp_path}/torch/hub/checkpoints/resnet18-f37072fd.pth" in said
    assert "download it elsewhere (https://download.pytorch.org/models/resnet18-f37072fd.pth) and copy it there" in said
    there = imagenet_path()
    there.parent.mkdir(parents=True)
    there.touch()
    assert doctor(capsys, *arguments)[0] == 0


def states(found: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in found}


def test_scarce_disk_memory_and_shared_memory_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Usage:
        free, total = 100 * 2**20, 2**40

    class Memory:
        available, total = 2**30, 8 * 2**30

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)
    found = states(list(checks.machine_checks(tmp_path)))
    assert (found["disk"], found["memory"], found["shared memory"]) == ("bad", "warning", "warning")
    Usage.free = 400 * 2**20
    assert states(list(checks.machine_checks(tmp_path)))["disk"] == "warning"


def test_a_device_that_does_not_compute_and_a_folder_that_cannot_be_written_are_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(wanted: str) -> None:
        raise DeviceError("a GPU is here, but torch is built without CUDA")

    def read_only(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checks, "choose_device", refused)
    monkeypatch.setattr(health, "probe", read_only)
    found = states(list(checks.machine_checks(tmp_path)))
    assert (found["device"], found["run folder"]) == ("bad", "bad")


def test_a_torchvision_of_another_torch_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Operators:
        @property
        def torchvision(self) -> None:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torch, "ops", Operators())
    (found,) = [check for check in checks.machine_checks(tmp_path) if check.name == "PyTorch"]
    assert found.state == "bad"
    assert "install both together" in found.remedy
