"""Settings that are valid alone but not together."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.conftest import ConfigMaker
from tests.support.running import train, view_of
from trainer.commands import training_checks as checks
from trainer.commands.train_request import check_request
from trainer.config.loader import build_config, load_config, shipped_names
from trainer.config.schema import Config
from trainer.config.setting_checks import setting_checks, setting_warnings
from trainer.data.augment.augment import Augment, Normalize
from trainer.errors import ConfigError


def configured(*overrides: str) -> Config:
    """The default configuration with overrides."""
    return build_config({}, {}, "test", list(overrides))


STEP = ("schedule.name=step", "train.epochs=20")
FOLDER = "data.kind=imagefolder"
CASES = {
    ("data.mean=123.7,116.3,103.5",): "data.mean [123.7, 116.3, 103.5] is not on the scale of pixels from 0 to 1",
    ("data.mean=0.5,-0.5,0.5",): "data.mean [0.5, -0.5, 0.5] is not on the scale",
    ("data.std=0.2,0.2,58.4",): "data.std [0.2, 0.2, 58.4] is not on the scale",
    ("data.std=1e-3,0.2,0.2",): "data.std [0.001, 0.2, 0.2] is not on the scale",
    (FOLDER, "data.crop_pct=0.05"): "data.crop_pct 0.05 shows the network 0.05 of the short side",
    ("data.image_size=8", "data.cutout=16"): "data.cutout 16 hides every pixel of every 8-pixel",
    ("data.image_size=16", "data.cutout=16"): "data.cutout 16 hides 56%",
    ("data.image_size=8", "data.crop_pad=8", "data.pad=zero"): "data.crop_pad 8 leaves",
    ("data.image_size=8", "data.crop_pad=64", "data.pad=zero"): "data.crop_pad 64 leaves 0%",
    ("data.image_size=8", "data.resized_crop=0.08"): "data.resized_crop 0.08 can crop to 2.3 of 8 pixels",
    ("model.stem=imagenet", "data.image_size=24"): "model.stem imagenet downsamples by 32",
    ("model.stem=imagenet", "data.image_size=64", "data.progressive=[[16, 1]]"): "images of 16",
    ("schedule.warmup=1.0",): "rises for 100% of the run",
    (*STEP, "schedule.milestones=[10, 20, 30]"): "schedule.milestones [20, 30] come at the end of the run or after it",
    (*STEP, "schedule.milestones=[2, 10]", "schedule.warmup=0.2"): "schedule.milestones [2] lie in the warm-up",
    ("optim.lr=900.0", "optim.weight_decay=1.0"): "removes 100% of each weight in every step",
    ("train.early_stop_epochs=12",): "train.early_stop_epochs 12 has no effect",
    ("model.init_from=imagenet", "model.freeze=layer2", "model.unfreeze_after=30"): "model.unfreeze_after 30 has no effect",
    ("model.init_from=imagenet", "model.freeze=backbone", "model.cache_features=true", "data.cutout=4", "data.flip=random"):
        "data.cutout, data.flip have no effect",
}  # fmt: skip


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_conflicting_settings_are_named_with_a_remedy(overrides: tuple[str, ...]) -> None:
    config = configured(*overrides)
    (check,) = setting_checks(config)
    assert CASES[overrides] in check.found
    assert check.remedy


@pytest.mark.parametrize(
    "override",
    ["data.mean=1e12,0,0", "data.mean=0,0,-1e12", "data.std=1e-30,1,1", "data.std=1e6,1,1", "data.crop_pct=1e-9"],
)
def test_settings_that_destroy_the_pixels_are_bad(override: str) -> None:
    assert [check.state for check in setting_checks(configured(FOLDER, override))] == ["bad"]


@pytest.mark.parametrize("override", ["data.mean=0,0,0", "data.std=1,1,1", f"data.std={1 / 255},1,1"])
def test_usual_scales_are_not_reported(override: str) -> None:
    assert not setting_checks(configured(FOLDER, override, "data.crop_pct=0.5"))


@pytest.mark.parametrize(
    ("images", "overrides", "expected"),
    [
        (100, ("data.batch_size=64",), "each epoch drops 36 of 100"),
        (100, ("data.batch_size=64", "data.drop_last=false"), ""),
        (64, ("data.batch_size=64", "train.epochs=4"), "schedule.warmup 0.2 of 4 steps is too short"),
        (6400, ("data.batch_size=64", "train.epochs=4"), ""),
        (6400, ("data.batch_size=64", "train.epochs=4", "schedule.unit=epoch"), "schedule.warmup 0.2 of 4 epochs"),
        (64, ("data.batch_size=64", "train.epochs=4", "schedule.warmup=0.0"), ""),
    ],
)
def test_settings_are_checked_against_the_number_of_images(
    images: int, overrides: tuple[str, ...], expected: str
) -> None:
    warnings = setting_warnings(configured(*overrides), images)
    assert [expected in warning for warning in warnings] == ([True] if expected else [])


EDGES = [
    ((FOLDER, "data.crop_pct=0.5"), (FOLDER, "data.crop_pct=0.49"), "warning"),
    ((FOLDER, "data.crop_pct=0.49", "data.fit=letterbox"), (FOLDER, "data.crop_pct=0.009"), "bad"),
    (("data.mean=0,0,1",), ("data.mean=0,0,1.01",), "warning"),
    (("data.std=0.0039063,1,1",), ("data.std=0.0039,1,1",), "warning"),  # 1/256 is 0.00390625
    (("data.image_size=8", "data.resized_crop=0.25"), ("data.image_size=8", "data.resized_crop=0.24"), "warning"),
    (("model.stem=imagenet", "data.image_size=32"), ("model.stem=imagenet", "data.image_size=31"), "warning"),
    (("model.stem=cifar", "data.image_size=31"), ("model.stem=imagenet", "data.image_size=31"), "warning"),
    (("schedule.warmup=0.5",), ("schedule.warmup=0.51",), "warning"),
    ((*STEP, "schedule.milestones=[19]"), (*STEP, "schedule.milestones=[20]"), "warning"),
    ((*STEP, "schedule.milestones=[4]"), (*STEP, "schedule.milestones=[3]"), "warning"),  # the warm-up ends with epoch 4
    (("optim.lr=10.0", "optim.weight_decay=0.01"), ("optim.lr=10.1", "optim.weight_decay=0.01"), "warning"),
    (("train.epochs=12", "train.early_stop_epochs=11"), ("train.epochs=12", "train.early_stop_epochs=12"), "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("sound", "doubtful", "state"), EDGES, ids=[" ".join(doubtful) for _, doubtful, _ in EDGES])
def test_a_setting_is_reported_beyond_its_limit(sound: tuple[str, ...], doubtful: tuple[str, ...], state: str) -> None:
    assert setting_checks(configured(*sound)) == []
    assert [check.state for check in setting_checks(configured(*doubtful))] == [state]


@pytest.mark.parametrize(
    ("images", "overrides", "expected"),
    [
        (80, ("data.batch_size=64",), False), (84, ("data.batch_size=64",), False), (86, ("data.batch_size=64",), True),
        # A fifth of 5 steps is one; of 6 it is more.
        (320, ("data.batch_size=64", "train.epochs=1"), True), (384, ("data.batch_size=64", "train.epochs=1"), False),
        (64, ("data.batch_size=64", "train.epochs=5", "schedule.unit=epoch"), True),
        (64, ("data.batch_size=64", "train.epochs=6", "schedule.unit=epoch"), False),
        (321, ("data.batch_size=64", "train.epochs=1", "data.drop_last=false"), False),  # six steps
        (321, ("data.batch_size=64", "train.epochs=1", "data.drop_last=true"), True),  # five
    ],
)  # fmt: skip
def test_the_number_of_steps_is_reported_beyond_its_limit(
    images: int, overrides: tuple[str, ...], expected: bool
) -> None:
    before = setting_checks(configured(*overrides))
    assert (len(setting_checks(configured(*overrides), images)) > len(before)) is expected


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_configurations_have_no_conflicts(name: str) -> None:
    assert not setting_checks(load_config(name).config)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(8, 14), side=st.integers(1, 32))
def test_cutout_is_refused_exactly_where_it_blanks_every_image(size: int, side: int) -> None:
    config = configured(f"data.image_size={size}", f"data.cutout={side}")
    normalize = Normalize.of([0.0] * 3, [1.0] * 3, torch.device("cpu"))
    positions = torch.arange(4 * size * size)
    white = torch.full((1, size, size, 3), 255, dtype=torch.uint8)
    augment = Augment(config=config.data, normalize=normalize, seed=0)
    images = augment(white, torch.zeros_like(positions), positions, positions, 0)
    blank = not bool(images.any())
    assert blank == any(check.state == "bad" for check in setting_checks(config))
    hidden = 1.0 - float(functional.relu(images).mean())
    assert (hidden > 0.4) == bool(setting_checks(config)) or abs(hidden - 0.4) < 0.03


def test_a_conflict_is_refused_by_train_and_doctor_and_warned_about_on_resume(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    arguments = argparse.Namespace(resume=None, config="digits", name=None, runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"data\.cutout 16 hides every pixel .*; set data\.cutout to 4 or less"):
        check_request(arguments, ["data.image_size=8", "data.cutout=16"])
    config = make_config("data.cutout=16", "train.epochs=1", "data.batch_size=256")
    assert any(
        check.state == "bad" and "data.cutout" in check.found
        for check in checks.config_checks(config, tmp_path, lambda *_: None)
    )
    notes = view_of(train(config, tmp_path).run.run_dir).notes
    assert any("data.cutout 16 hides every pixel" in note.text for note in notes), (
        "a run that an older version has started"
    )
