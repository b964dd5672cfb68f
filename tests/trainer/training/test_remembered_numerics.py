"""The fastest numerics are timed once on a machine, and remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.conftest import ConfigMaker
from tests.support.running import train, view_of
from trainer.model.numerics import Numerics
from trainer.training import build as build_module
from trainer.training import remembered_numerics
from trainer.training.remembered_numerics import RememberedNumerics

CPU = torch.device("cpu")
CHOICE = Numerics(precision="fp32", channels_last=True, convolution="products")
AUTO = ("run.precision=fp32", "run.channels_last=true", "run.convolution=auto")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "r18-tui" / "numerics.json"


@pytest.mark.usefixtures("narrow_network")
def test_a_second_run_uses_the_choice_of_the_first(
    make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(*AUTO, "train.epochs=1")
    first = view_of(train(config, tmp_path / "first").run.run_dir).started
    assert first is not None
    assert first.choices["remembered"] is False
    monkeypatch.setattr(build_module, "autotune_numerics", None)  # a call would fail
    second = view_of(train(config, tmp_path / "second").run.run_dir).started
    assert second is not None
    assert second.choices["remembered"] is True
    same = ("precision", "channels_last", "convolution", "timings_ms")
    assert [second.choices[name] for name in same] == [first.choices[name] for name in same]
    assert remembered_numerics.forget()
    assert not remembered_numerics.forget()
    third = view_of(train(config, tmp_path / "third").run.run_dir)
    assert third.failure is not None
    assert "not callable" in third.failure.error, "timed again"


def test_another_configuration_or_device_is_timed_again(make_config: ConfigMaker) -> None:
    RememberedNumerics(make_config(*AUTO), CPU).store(CHOICE, {"fp32": 1.0})
    assert RememberedNumerics(make_config(*AUTO), CPU).find() == (CHOICE, {"fp32": 1.0})
    assert RememberedNumerics(make_config(*AUTO, "run.name=other", "optim.lr=0.3"), CPU).find() is not None
    for change in (
        "data.batch_size=24",
        "data.image_size=24",
        "model.stem=cifar",
        "optim.name=muon",
        "run.precision=auto",
    ):
        assert RememberedNumerics(make_config(*AUTO, change), CPU).find() is None
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert RememberedNumerics(make_config(*AUTO), CPU).find() is None
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"KEY": 1}', b'{"KEY": {"numerics": {"precision": "fp1"}}}']
)
def test_a_file_that_cannot_be_used_is_as_good_as_none(make_config: ConfigMaker, cache: Path, content: bytes) -> None:
    remembered = RememberedNumerics(make_config(*AUTO), CPU)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content.replace(b"KEY", remembered._key.encode()))
    assert remembered.find() is None
    remembered.store(CHOICE, {})
    assert remembered.find() == (CHOICE, {})
    assert os.stat(cache).st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_no_error(make_config: ConfigMaker, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    RememberedNumerics(make_config(*AUTO), CPU).store(CHOICE, {})
    assert RememberedNumerics(make_config(*AUTO), CPU).find() is None


@pytest.mark.usefixtures("narrow_network")
def test_a_fused_choice_of_another_installation_is_timed_again(
    make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a compiler for Triton, for example."""
    config = make_config(*AUTO, "train.epochs=1")
    RememberedNumerics(config, CPU).store(Numerics(precision="fp32", channels_last=True, batch_norm="fused"), {})
    started = view_of(train(config, tmp_path / "runs").run.run_dir).started
    assert started is not None
    assert started.choices["remembered"] is False
    assert started.choices["batch_norm"] == "native"
