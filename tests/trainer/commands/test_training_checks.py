"""Checks before a run, on both sides of each limit: a good machine passes, and a single problem is reported."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.commands import training_checks as checks
from trainer.config.loader import build_config
from trainer.data import prepare as build
from trainer.data.dataset import DataSet, ResidentSplit
from trainer.errors import CheckpointError, DataError, DeviceError
from trainer.host import health
from trainer.host.health import Check
from trainer.host.limits import Memory

GIB, MIB = 2**30, 2**20
CHECKPOINT = 90 * MIB  # ResNet-18 with its momentum: 11.2 million parameters, two floats each


def only(checked: Any) -> Check:
    (check,) = [checked] if isinstance(checked, Check) else checked
    assert (check.remedy == "") is (check.state == "good"), "every problem has a remedy"
    return check


@pytest.fixture(name="well")
def _well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with enough of everything."""
    monkeypatch.setattr(health, "usable_memory", lambda: Memory(8 * GIB, 4 * GIB))
    monkeypatch.setattr(health, "free_bytes", lambda _: 100.0 * GIB)
    monkeypatch.setattr(health, "probe", lambda _: True)


@pytest.mark.usefixtures("well")
def test_a_good_machine_has_no_preflight_messages(tmp_path: Path) -> None:
    assert health.preflight(tmp_path) == []


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("name", "replacement", "expected"),
    [
        ("usable_memory", lambda: Memory(8 * GIB, 2 * GIB - 1), "memory: 2.0 of 8.0 GiB free; close other programs"),
        (
            "free_bytes",
            lambda _: 2.0 * CHECKPOINT - 1,
            "no room for a checkpoint: free some space, or use --runs-dir DIR",
        ),
        ("free_bytes", lambda _: 6.0 * CHECKPOINT - 1, "a run keeps several checkpoints of 90 MB: free some space"),
        ("probe", lambda _: False, "cannot lock files"),
        ("probe", raising(OSError(30, "Read-only file system")), "Read-only file system; keep runs on a writable disk"),
    ],
)
def test_a_single_problem_is_reported_by_preflight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, replacement: Callable[..., Any], expected: str
) -> None:
    monkeypatch.setattr(health, name, replacement)
    (line,) = health.preflight(tmp_path)
    assert expected in line


@pytest.mark.parametrize(("available", "state"), [(2 * GIB, "good"), (2 * GIB - 1, "warning"), (0, "warning")])
def test_two_gib_of_memory_are_enough(monkeypatch: pytest.MonkeyPatch, available: int, state: str) -> None:
    monkeypatch.setattr(health, "usable_memory", lambda: Memory(64 * GIB, available))
    assert only(health.memory_check()).state == state


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("free", "state"),
    [
        (2 * CHECKPOINT - 1, "bad"), (2 * CHECKPOINT, "warning"), (6 * CHECKPOINT - 1, "warning"), (6 * CHECKPOINT, "good"),
        (math.inf, "good"), (0, "bad"),
    ],
)  # fmt: skip
def test_a_run_needs_disk_space_for_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str
) -> None:
    monkeypatch.setattr(health, "free_bytes", lambda _: free)
    disk, folder = health.disk_checks(tmp_path)
    assert (disk.name, only(disk).state, folder.name, only(folder).state) == ("disk", state, "run folder", "good")
    assert ("free space unknown" in disk.found) is math.isinf(free)


def test_a_missing_runs_folder_is_checked_by_its_nearest_existing_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[Path] = []

    def probe(place: Path) -> float:
        probed.append(place)
        return 100.0 * GIB

    monkeypatch.setattr(health, "free_bytes", probe)
    monkeypatch.setattr(health, "probe", probe)
    list(health.disk_checks(tmp_path / "a" / "b"))
    (tmp_path / "a").mkdir()
    list(health.disk_checks(tmp_path / "a" / "b"))
    assert probed == [tmp_path, tmp_path, tmp_path / "a", tmp_path / "a"]


@pytest.mark.parametrize(("free", "state"), [(256 * MIB, "good"), (256 * MIB - 1, "warning")])
def test_workers_need_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(health, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert only(health.shared_memory_check()).state == state
    monkeypatch.setattr(health, "_SHARED_MEMORY", tmp_path / "missing")
    assert only(health.shared_memory_check()).state == "good"


@pytest.mark.parametrize(
    ("version", "state"), [((3, 9, 18), "bad"), ((3, 10, 0), "good"), ((3, 13, 1), "good"), ((2, 11, 0), "bad")]
)
def test_python_must_be_new_enough(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], state: str) -> None:
    monkeypatch.setattr(checks, "sys", SimpleNamespace(version_info=version, executable="python"))
    assert only(checks._python()).state == state


@pytest.mark.parametrize(("free", "state"), [(40 * GIB, "good"), (40 * GIB - 1, "warning")])
def test_a_gpu_needs_half_of_its_memory_free(monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(checks, "choose_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(checks, "describe_device", lambda _: {"name": "A GPU"})
    monkeypatch.setattr(checks, "driver_version", lambda: "1")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * GIB))
    assert only(checks._device("auto")).state == state


def test_a_missing_device_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(checks._device("cpu")).state == "good"
    monkeypatch.setattr(checks, "choose_device", raising(DeviceError("no such device")))
    assert (only(checks._device("cuda:7")).state, only(checks._device("cuda:7")).found) == ("bad", "no such device")


@pytest.mark.parametrize(
    ("exists", "network", "state"),
    [(True, "warning", "good"), (True, "good", "good"), (False, "good", "good"), (False, "warning", "bad")],
)
def test_downloads_need_the_file_or_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, network: str, state: str
) -> None:
    monkeypatch.setattr(checks, "network_check", lambda _: Check(name="network", state=network, found="x", remedy="y"))
    path = tmp_path / "archive"
    if exists:
        path.touch()
    assert only(checks._download(path, "data", "https://example.invalid", "images")).state == state


def test_unreadable_weights_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = SimpleNamespace(origin="a file", state={"a": 1})
    monkeypatch.setattr(checks, "find_initial_weights", lambda *_: weights)
    assert only(checks._weights("w.pt", tmp_path)).found == "a file: 1 tensors"
    monkeypatch.setattr(checks, "find_initial_weights", raising(CheckpointError("damaged")))
    assert only(checks._weights("w.pt", tmp_path)).state == "bad"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("data.kind=digits",), []),
        (("data.kind=digits", "run.device=cpu"), ["device cpu"]),
        (("data.kind=imagefolder",), ["images"]),
        (("data.kind=cifar10",), ["data cifar10"]),
        (("data.kind=digits", "model.init_from=imagenet"), ["weights ImageNet weights"]),
        (("data.kind=digits", "model.init_from=w.pt"), ["weights w.pt"]),
    ],
    ids=" ".join,
)
def test_a_configuration_is_checked_only_for_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], expected: list[str]
) -> None:
    checked: list[str] = []
    good = Check(name="x", state="good", found="")

    def note(what: str) -> Check:
        checked.append(what)
        return good

    monkeypatch.setattr(checks, "setting_checks", lambda _: [])
    monkeypatch.setattr(checks, "_device", lambda wanted: [note(f"device {wanted}")])
    monkeypatch.setattr(checks, "_images", lambda *_: [note("images")])
    monkeypatch.setattr(checks, "_download", lambda _path, name, _url, what: note(f"{name} {what}"))
    monkeypatch.setattr(checks, "_weights", lambda reference, _: note(f"weights {reference}"))
    config = build_config({}, {}, "test", list(overrides))
    assert list(checks.config_checks(config, tmp_path, lambda *_: None)) == [good] * len(expected)
    assert checked == expected


# The data -------------------------------------------------------------------------------------------------------------


def noise(**counts: int) -> DataSet:
    splits = {
        name: ResidentSplit(torch.zeros(count, 8, 8, 3, dtype=torch.uint8), torch.zeros(count, dtype=torch.long))
        for name, count in counts.items()
    }
    return DataSet(name="x", classes=("a", "b"), splits=dict(splits), fingerprint="f", identity={}, preprocess={})


def test_trainable_data_passes() -> None:
    """`check` raises an error otherwise."""
    noise(train=8, test=1).check(batch_size=8, num_classes="auto")
    noise(train=8, val=1, test=0).check(batch_size=8, num_classes=2)


@pytest.mark.parametrize(
    ("data", "batch_size", "num_classes", "message"),
    [
        (noise(train=8, test=1), 9, "auto", "8 training images are fewer than data.batch_size 9; set data.batch_size to 2"),
        (noise(train=36, test=1), 37, "auto", "set data.batch_size to 9 or less"),
        (noise(train=8, test=1), 8, 3, "model.num_classes: 3 does not match the 2 classes of the data"),
        (noise(train=8, test=1), 8, 1, "model.num_classes: 1"),
        (noise(train=8, test=0), 8, "auto", "the test split holds no images"),
        (noise(train=8, val=0, test=9), 8, "auto", "the val split holds no images"),
    ],
)  # fmt: skip
def test_data_with_a_single_problem_is_refused(
    data: DataSet, batch_size: int, num_classes: int | str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        data.check(batch_size=batch_size, num_classes=num_classes)


def test_data_with_one_class_is_refused() -> None:
    data = noise(train=8, test=1)
    object.__setattr__(data, "classes", ("a",))
    with pytest.raises(DataError, match="found 1 class; a classifier needs at least two"):
        data.check(batch_size=8, num_classes="auto")


NEEDED = 100 * 32 * 32 * 3  # bytes of a hundred images


@pytest.mark.parametrize(
    ("device", "ram", "gpu", "place"),
    [
        ("cpu", 2 * NEEDED, 0, "device"), ("cpu", 2 * NEEDED - 2, 0, "none"),  # half of the memory that is free
        ("cuda", 2 * NEEDED, 2.5 * NEEDED, "device"), ("cuda", 2 * NEEDED, 2.5 * NEEDED - 3, "ram"),  # 40 % of the GPU's
        ("cuda", 2 * NEEDED - 2, 9 * NEEDED, "none"), ("cuda", 2 * NEEDED - 2, 0, "none"),
    ],
)  # fmt: skip
def test_decoded_images_are_kept_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, device: str, ram: int, gpu: float, place: str
) -> None:
    monkeypatch.setattr(build, "usable_memory", lambda: Memory(ram, ram))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (gpu, gpu))
    data = build_config({}, {}, "test", ["data.kind=imagefolder", "data.image_size=32"]).data
    assert build.place_pixels(data, 100, torch.device(device)) == place
    kept = checks._cache(build_config({}, {}, "test", ["data.kind=imagefolder", "data.image_size=32"]), 100)
    assert (only(kept).state == "good") is (ram >= 2 * NEEDED)


@pytest.mark.parametrize(
    ("kind", "cache", "place"),
    [("imagefolder", "none", "none"), ("digits", "none", "ram"), ("imagefolder", "ram", "ram"), ("digits", "device", "device")],
)  # fmt: skip
def test_only_folders_can_stay_on_the_disk(kind: str, cache: str, place: str) -> None:
    data = build_config({}, {}, "test", [f"data.kind={kind}", f"data.cache={cache}"]).data
    assert build.place_pixels(data, 10**9, torch.device("cpu")) == place
