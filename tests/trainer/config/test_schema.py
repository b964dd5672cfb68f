"""Configurations: shipped files, errors, and bounds of values."""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from pathlib import Path

import pytest

from trainer.config.loader import (
    build_config,
    differences,
    find_config,
    known_keys,
    load_config,
    shipped_names,
    to_yaml,
)
from trainer.config.schema import Config, UiConfig, may_change_on_resume
from trainer.config.yaml_reader import read_mapping
from trainer.errors import ConfigError
from trainer.run.log.codec import decode, encode
from trainer.run.log.event import Record
from trainer.run.log.run_events import Opened


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_configurations_are_valid_and_state_their_accuracy(name: str) -> None:
    resolved = load_config(name)
    assert resolved.shipped
    assert "# Reaches: " in find_config(name)[0].read_text()


def test_cifar_tutorial_has_the_settings_of_the_tutorial() -> None:
    config = load_config("cifar-tutorial").config
    assert (config.data.batch_size, config.data.drop_last) == (128, False)
    assert (config.data.pad, config.data.crop_pad) == ("zero", 4)
    assert (config.data.flip, config.data.mean, config.data.std) == ("random", [0.5] * 3, [0.5] * 3)
    assert (config.optim.lr, config.optim.momentum) == (0.1, 0.9)
    assert (config.optim.nesterov, config.optim.weight_decay) == (False, 5e-4)
    assert (config.schedule.name, config.schedule.unit) == ("cosine", "epoch")
    assert (config.schedule.warmup, config.train.epochs) == (0, 200)
    assert (config.model.stem, config.train.label_smoothing, config.data.cutout) == ("cifar-maxpool", 0.0, 0)


def test_an_existing_path_takes_precedence_over_a_shipped_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/digits.yaml")[1]
    own = tmp_path / "configs"
    own.mkdir()
    write(own / "digits.yaml", "run: {name: own}\n")
    resolved = load_config("configs/digits.yaml")
    assert not resolved.shipped
    assert resolved.config.run.name == "own"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("train: {epoch: 3}\n", [], ":1: train.epoch: unknown key; did you mean train.epochs?"),
        ("optim:\n  lr_warmup: 3\n", [], ":2: optim.lr_warmup: unknown key; did you mean schedule.warmup?"),
        ("trian: {epochs: 3}\n", [], ":1: trian: unknown group"),
        ("train: {epochs: many}\n", [], ":1: train.epochs: expected int; found 'many'"),
        ("train: {epochs: 0}\n", [], ":1: train.epochs: input should be greater than or equal to 1; found 0"),
        ("model: {stem: resnet}\n", [], ":1: model.stem: expected cifar or cifar-maxpool or imagenet; found 'resnet'"),
        ("train: 3\n", [], ":1: train: expected keys under this group, found 3"),
        ("", ["train.epochs=x"], "command line: train.epochs: expected int; found 'x'"),
        ("", ["epochs=3"], "epochs=3: expected group.key=value, such as train.epochs=20; did you mean train.epochs?"),
        ("data: {batch_size: 10}\n", ["train.grad_accum_steps=3"], "must be divisible"),
        ("data: {progressive: [[16, 4, 1]]}\n", [], "pairs of pixels and epochs"),
        ("data: {progressive: [[16, 0]]}\n", [], "pairs of pixels and epochs"),
        ("data: {progressive: [[24, 1], [16, 1]]}\n", [], "must rise from 8 or more to image_size 32"),
        ("data: {progressive: [[48, 1]]}\n", [], "must rise from 8 or more to image_size 32"),
        ("data: {progressive: [[16, 4], [24, 8]]}\n", ["train.epochs=12"], "takes 12 epochs, and train.epochs is 12"),
        ("schedule: {name: step}\n", [], "needs milestones"),
        ("model: {freeze: backbone}\n", [], "needs model.init_from"),
        ("run: {name: ../x}\n", [], "run.name: expected letters"),
        ("data: {workers: -1}\n", [], "data.workers"),
    ],
)
def test_a_wrong_configuration_is_explained(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


LARGEST = 2**53


@pytest.mark.parametrize("key", [key for key, group in known_keys().items() if group is not UiConfig])
def test_every_accepted_configuration_can_be_read_from_the_log(key: str) -> None:
    values = (1, LARGEST, -LARGEST, LARGEST + 1, 10**400, 1e-300, 1e39, 1e100, -1e300)
    for value, wrap in itertools.product(values, ("{}", "[{}, 1, 1]", "[[16, {}]]")):
        with suppress(ConfigError):
            config = build_config({}, {}, "test", [f"{key}={wrap.format(value)}"])
            opened = Opened(
                run="r", directory="d", pid=1, host="h", resume=False, config=config.model_dump(mode="json")
            )
            assert decode(encode(Record(seq=0, time=1.0, event=opened))) is not None, (value, wrap)


@pytest.mark.parametrize("setting", ["eval.every_epochs={}", "checkpoint.every_s={}", "model.unfreeze_every={}"])
def test_numbers_are_bounded_as_in_the_log(setting: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(setting[:-3]) + f": expected numbers of at most {LARGEST:,}; found"
    ):
        build_config({}, {}, "test", [setting.format(LARGEST + 1)])


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "train: {epochs: 0}\noptim: {lr: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_resolved_configuration_reads_back_equal() -> None:
    config = build_config(
        {}, {}, "test", ["train.max_grad_norm=1e-3", "schedule.name=step", "schedule.milestones=[3, 5]"]
    )
    values, lines = read_mapping(to_yaml(config), source="again")
    assert build_config(values, lines, "again") == config
    assert differences(Config(), config) == {
        "train.max_grad_norm": (None, 0.001),
        "schedule.name": ("linear", "step"),
        "schedule.milestones": ([], [3, 5]),
    }


def test_a_resume_may_change_intervals_but_not_the_training() -> None:
    assert may_change_on_resume("checkpoint.every_s")
    assert may_change_on_resume("train.epochs")
    assert not may_change_on_resume("optim.lr")
    assert not may_change_on_resume("run.seed")


def test_the_fast_recipe_is_that_of_the_cpu() -> None:
    """So its accuracy on a CPU holds for it; only evaluations are more frequent."""
    fast, cpu = (load_config(name).config.model_dump() for name in ("cifar-fast", "cifar-cpu"))
    assert fast.pop("run") | {"name": ""} == cpu.pop("run") | {"name": ""}
    assert fast.pop("eval") == cpu.pop("eval") | {"every_epochs": 4}
    assert fast == cpu
