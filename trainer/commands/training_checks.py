"""Checks of `doctor` that concern training: Python, PyTorch, device, memory, disk, network, and a configuration's data."""

from __future__ import annotations

import platform
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch

from trainer.config.schema import Config
from trainer.config.setting_checks import setting_checks, step_checks
from trainer.data.prepare import load_dataset, place_pixels, undecoded
from trainer.errors import R18Error
from trainer.host.gpu import driver_version
from trainer.host.health import GIB, Check, disk_checks, memory_check, shared_memory_check
from trainer.host.progress import Progress, no_progress
from trainer.model.device import choose_device, describe_device
from trainer.model.initial_weights import IMAGENET_URL, find_initial_weights, imagenet_path

_LEAST_PYTHON = (3, 10)
_NETWORK_TIMEOUT_S = 3.0
_ARCHIVES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
}
"""Unpacked folder and archive of each downloadable data set."""


def machine_checks(runs_dir: Path) -> Iterator[Check]:
    """Checks that do not depend on a configuration."""
    yield _python()
    yield _libraries()
    yield from _device("auto")
    yield _precision()
    yield memory_check()
    yield shared_memory_check()
    yield from disk_checks(runs_dir)


def config_checks(config: Config, runs_dir: Path, progress: Progress) -> Iterator[Check]:
    """Check the requirements of a configuration: device, images, weights."""
    yield from setting_checks(config)
    if config.run.device != "auto":
        yield from _device(config.run.device)
    if config.data.kind == "imagefolder":
        yield from _images(config, progress)
    elif config.data.kind != "digits":
        names = _ARCHIVES[config.data.kind]
        places = [Path(config.data.root).expanduser() / name for name in names]
        place = next((path for path in places if path.exists()), places[1])
        yield _download(place, "data", "https://www.cs.toronto.edu", config.data.kind)
    if config.model.init_from == "imagenet":
        yield _download(imagenet_path(), "weights", IMAGENET_URL, "ImageNet weights")
    elif config.model.init_from is not None:
        yield _weights(config.model.init_from, runs_dir)


def network_check(url: str = IMAGENET_URL) -> Check:
    """Check whether files can be downloaded; nothing is sent."""
    host = urlparse(url).hostname or ""
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - an https address of our own
        with urllib.request.urlopen(request, timeout=_NETWORK_TIMEOUT_S):  # noqa: S310 - as a download would, proxies included
            return Check("network", "good", f"{host} answers")
    except OSError as error:
        return Check(
            "network", "warning", f"{host} does not answer ({error})",
            "only downloads need it: CIFAR-10, and ImageNet weights (model.init_from: imagenet)",
        )  # fmt: skip


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < _LEAST_PYTHON:
        return Check("Python", "bad", found, "install Python 3.10 or newer")
    return Check("Python", "good", found)


def _libraries() -> Check:
    """Check that PyTorch and torchvision were built for each other: otherwise torchvision's operators are missing."""
    try:
        import torchvision

        torch.ops.torchvision.nms  # noqa: B018 - the lookup is the test
        return Check("PyTorch", "good", f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    except (ImportError, AttributeError, RuntimeError) as error:
        return Check(
            "PyTorch", "bad", f"torch {torch.__version__}, but torchvision does not match it: {error}",
            "install both together: pip install --upgrade torch torchvision",
        )  # fmt: skip


def _device(wanted: str) -> Iterator[Check]:
    try:
        device = choose_device(wanted)
    except R18Error as error:
        yield Check("device", "bad", str(error), "or train on the CPU: run.device=cpu")
        return
    facts = describe_device(device)
    if device.type != "cuda":
        yield Check("device", "good", str(facts["name"]))
        return
    free, total = torch.cuda.mem_get_info(device)
    room = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    built = f"driver {driver_version()}, torch built for CUDA {torch.version.cuda}"
    state, remedy = "good", ""
    if free < total / 2:
        state, remedy = "warning", "another program uses it: see nvidia-smi, or choose another with run.device=cuda:N"
    yield Check("device", state, f"{facts['name']}, {room}; {built}", remedy)


def _precision() -> Check:
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Check("precision", "good", "bf16, tf32 and fp32" if native else "fp16 and fp32 (bf16 from Ampere on)")
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    fast = " avx512_bf16" in flags or " amx_bf16" in flags
    return Check(
        "precision", "good",
        f"{capability}; bf16 is {'fast' if fast else 'slow'} here, and the run times it before it chooses",
    )  # fmt: skip


def _images(config: Config, progress: Progress) -> Iterator[Check]:
    """Check the images in the same way as a run."""
    try:
        data, _ = load_dataset(undecoded(config), torch.device("cpu"), progress)
        data.check(batch_size=config.data.batch_size, num_classes=config.model.num_classes)
    except R18Error as error:
        yield Check("images", "bad", str(error), "r18-tui init FOLDER writes a configuration that fits")
        return
    number = len(data.splits["train"])
    yield Check("images", "good", f"{number:,} training images in {len(data.classes)} classes")
    yield from step_checks(config, number)
    if data.skipped:
        path, reason = data.skipped[0]
        yield Check(
            "images", "warning", f"{len(data.skipped):,} cannot be read, such as {path}: {reason}",
            "they are skipped; repair or delete them",
        )  # fmt: skip
    for remark in data.remarks:
        yield Check("images", "warning", remark, "delete one copy")
    for note in data.notes:
        yield Check("images", "warning", note)
    yield _cache(config, sum(len(split) for split in data.splits.values()))


def _cache(config: Config, number: int) -> Check:
    """Check whether decoded images fit in memory, if they are to be cached."""
    if place_pixels(config.data, number, torch.device("cpu")) != "none":
        return Check("image cache", "good", "decoded images stay in memory")
    return Check(
        "image cache", "warning", "decoded images do not stay in memory",
        "workers decode them again in every epoch (data.workers); a smaller data.image_size needs less",
    )  # fmt: skip


def _weights(reference: str, runs_dir: Path) -> Check:
    try:
        found = find_initial_weights(reference, runs_dir, no_progress)
    except R18Error as error:
        return Check("weights", "bad", str(error), "give imagenet, a file or a run in model.init_from")
    return Check("weights", "good", f"{found.origin}: {len(found.state)} tensors")


def _download(path: Path, name: str, url: str, what: str) -> Check:
    """Check whether a file that is downloaded once is present or can be downloaded."""
    if path.exists():
        return Check(name, "good", f"{what}: {path}")
    network = network_check(url)
    if network.state == "good":
        return Check(name, "good", f"{what} will be downloaded to {path}")
    return Check(
        name, "bad", f"{what}: not at {path}, and {network.found}",
        f"download it elsewhere ({url}) and copy it there",
    )  # fmt: skip


def run_checks(runs_dir: Path, config: Config | None, progress: Progress) -> Iterator[Check]:
    """Run all checks, and yield each result at once; without a configuration, check the machine alone."""
    yield from machine_checks(runs_dir)
    yield network_check()
    if config is not None:
        yield from config_checks(config, runs_dir, progress)
