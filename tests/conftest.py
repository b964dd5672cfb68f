"""Shared fixtures: small image folders, and configurations that train in a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.narrow.narrow_resnet import narrow_resnet18
from tests.support.running import STARTED, train
from trainer.config.loader import build_config
from trainer.config.schema import Config
from trainer.model.versions import torch_release

TINY = (
    "data.image_size=8",
    "data.batch_size=8",
    "model.stem=cifar-maxpool",
    "train.epochs=2",
    "run.device=cpu",
    "run.precision=fp32",
    "run.channels_last=true",
    "run.convolution=native",
    "run.batch_norm=native",
    "eval.batch_size=64",
)
"""With these, a step of ResNet-18 takes about 30 ms on a laptop."""

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that a test starts compiles the program again

for number in (signal.SIGHUP, signal.SIGINT):
    # Ignored under nohup or behind a script's `&`, and programs that a test starts inherit that, but no handler of ours.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

needs_exporter = pytest.mark.skipif(torch_release() < (2, 9), reason="export needs torch 2.9")


NARROW = str(
    Path(__file__).parent / "support" / "narrow"
)  # first in PYTHONPATH, it makes networks of child processes narrow


def _make_narrow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("torchvision.models.resnet18", narrow_resnet18)
    patch.setenv("PYTHONPATH", NARROW, prepend=os.pathsep)


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps what runs remember out of the user's cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def narrow_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains a narrow network, for files that do not test the network; tests marked `whole_network` train the real one."""
    if request.node.get_closest_marker("whole_network") is None:
        _make_narrow(monkeypatch)


@pytest.fixture(scope="module")
def narrow_module() -> Iterator[None]:
    """The same for files whose tests share one trained run."""
    with pytest.MonkeyPatch.context() as patch:
        _make_narrow(patch)
        yield


FolderMaker = Callable[..., Path]
ConfigMaker = Callable[..., Config]
TunedMaker = Callable[..., Config]


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches of image surveys out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "caches"))


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the speed of exported files only briefly."""
    monkeypatch.setattr("trainer.export.speed.SECONDS", 0.05)


@pytest.fixture(autouse=True)
def end_training() -> Iterator[None]:
    """End training threads that a failed test left behind: the interpreter would wait for them forever."""
    yield
    for thread in STARTED:
        thread.release()
        thread.stop()
        thread.join(30)
    STARTED.clear()


def write_colours(
    root: Path,
    *,
    classes: tuple[str, ...] = ("blue", "green", "red"),
    splits: tuple[str, ...] = ("train", "test"),
    per_class: int = 12,
    size: tuple[int, int] = (10, 12),
) -> None:
    """Write an image folder whose classes differ in colour, so that a network can learn them."""
    noise = np.random.default_rng(0)
    for split in splits:
        for label, class_name in enumerate(classes):
            folder = root / split / class_name
            folder.mkdir(parents=True)
            for index in range(per_class):
                pixels = noise.integers(0, 60, (*size, 3), dtype=np.uint8)
                pixels[..., label % 3] += 120
                Image.fromarray(pixels).save(folder / f"{index:03d}.png")


@pytest.fixture
def make_folder(tmp_path: Path) -> FolderMaker:
    """Calls `write_colours` on a folder of the test."""

    def make(
        name: str = "images",
        *,
        classes: tuple[str, ...] = ("blue", "green", "red"),
        splits: tuple[str, ...] = ("train", "test"),
        per_class: int = 12,
        size: tuple[int, int] = (10, 12),
    ) -> Path:
        root = tmp_path / name
        write_colours(root, classes=classes, splits=splits, per_class=per_class, size=size)
        return root

    return make


@pytest.fixture
def make_config() -> ConfigMaker:
    """Makes a tiny configuration, by default on the embedded digits."""

    def make(*overrides: str) -> Config:
        return build_config({}, {}, "test", [*TINY, *overrides])

    return make


@pytest.fixture
def folder_config(make_folder: FolderMaker, make_config: ConfigMaker) -> Config:
    """A tiny configuration on a tiny image folder."""
    root = make_folder()
    return make_config("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0", "data.cache=ram")


@pytest.fixture
def tuned(make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path) -> TunedMaker:
    """Makes configurations that start from the weights of a short run on the same folder; 4 steps per epoch."""
    root = make_folder()
    common = ("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0", "data.cache=ram")
    source = train(make_config(*common, "train.epochs=1"), tmp_path / "source").run.run_dir

    def make(*overrides: str) -> Config:
        return make_config(*common, f"model.init_from={source.path}", *overrides)

    return make
