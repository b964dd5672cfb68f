"""Every setting on the command line, in a file and in a resume, and the current settings of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.checkpoints import checkpoint_of
from tests.support.running import train
from trainer.config.field_type import FieldType
from trainer.config.loader import build_config, known_keys, load_config, parse_overrides, to_yaml, type_of
from trainer.config.schema import CHANGEABLE, RESUME_OVERRIDES, Config, ExportConfig, may_change_on_resume
from trainer.config.yaml_reader import read_mapping
from trainer.errors import ConfigError
from trainer.evaluation.classifier import open_classifier
from trainer.evaluation.run_images import held_out_images
from trainer.evaluation.run_settings import settings_now
from trainer.export.formats import FORMATS
from trainer.model.checkpoint import write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.options import split_overrides
from trainer.run.folder.run_config import read_run_config, resumed_config
from trainer.run.folder.run_dir import RunDir, write_env
from trainer.session import export_run as command

VALUES: dict[type, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"])),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
}


def values_of(kind: FieldType) -> st.SearchStrategy[Any]:
    """Any value of a field, in range or not."""
    strategies = [VALUES[part] for part in kind.plain]
    strategies += [st.sampled_from(kind.choices)] if kind.choices else []
    strategies += [st.lists(values_of(kind.items), max_size=4)] if kind.items else []
    return st.one_of(*strategies, *([st.none()] if kind.optional else []))


def typed(value: Any) -> str:
    """A value as a person types it."""
    if isinstance(value, list):
        return f"[{', '.join(map(typed, value))}]"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


@pytest.mark.parametrize("key", known_keys())
@given(st.data())
def test_every_key_takes_any_value_of_its_type_from_the_command_line(key: str, data: st.DataObject) -> None:
    kind = type_of(key)
    value = data.draw(values_of(kind))
    (token,) = split_overrides([f"{key}={typed(value)}"]).overrides
    ((parsed_key, read),) = parse_overrides([token])
    if kind.optional and typed(value).lower() == "none":
        value = None
    read = kind.expand_shorthand(read)
    assert (parsed_key, read, type(read)) == (key, value, type(value))


SPECIAL = {"data.reading": "1",
    "run.name": "2024", "run.device": "cpu", "data.batch_size": "8", "data.progressive": "[[8, 1]]", "data.mean": "0.1,0.2,0.3",
    "data.std": "[0.1, 0.2, 0.3]", "data.image_size": "48", "model.freeze": "none", "model.cache_features": "false",
    "model.unfreeze_after": "none", "model.unfreeze_every": "0", "model.num_classes": "7", "train.grad_accum_steps": "2",
    "schedule.milestones": "", "schedule.name": "cosine", "export.opset": "19", "run.sinks": "tensorboard",
}  # fmt: skip
"""Values that are valid with the defaults of other keys; any value is valid for keys that are not listed."""


def one_value(key: str) -> str:
    """A valid value of a key, as text."""
    kind = type_of(key)
    if key in SPECIAL:
        return SPECIAL[key]
    if kind.words:
        return kind.words[-1]
    return {bool: "true", int: "7", float: "0.25", str: "other"}[kind.plain[0]]


@pytest.mark.parametrize("key", known_keys())
def test_every_key_works_on_the_command_line_in_files_and_in_resumes(key: str, tmp_path: Path) -> None:
    tokens = split_overrides([f"{key}={one_value(key)}", "c.yaml"])
    assert tokens.rest == ["c.yaml"]
    (tmp_path / "c.yaml").write_text("")
    config = load_config(str(tmp_path / "c.yaml"), tokens.overrides).config
    group, _, name = key.partition(".")
    (tmp_path / "c.yaml").write_text(f"{group}: {json.dumps({name: config.model_dump(mode='json')[group][name]})}\n")
    assert load_config(str(tmp_path / "c.yaml")).config == config
    run = RunDir(tmp_path)
    run.config.write_text(to_yaml(Config()))
    if may_change_on_resume(key) or config == Config():
        assert resumed_config(run, tokens.overrides) == config
    else:
        with pytest.raises(ConfigError, match=f"a resume cannot change\n  {key}: "):
            resumed_config(run, tokens.overrides)


def test_listed_keys_and_formats_exist() -> None:
    groups = [f"{group}." for group in Config.model_fields]
    assert set(RESUME_OVERRIDES) <= {*known_keys(), *groups}
    assert all(key in known_keys() and may_change_on_resume(key) for key in CHANGEABLE)
    assert {name for name in ExportConfig.model_fields if name in FORMATS} == FORMATS.keys() - {"onnx"}


@pytest.mark.parametrize("text", ["My #1 photos", "2024", "null", "true", "[a]", "'x'", " x ", "a: b", "1e5", "~"])
def test_text_is_taken_literally(text: str) -> None:
    assert build_config({}, {}, "test", [f"data.root={text}"]).data.root == text


@pytest.mark.parametrize("key", [key for key in known_keys() if type_of(key).optional])
@pytest.mark.parametrize("none", ["none", "None"])
def test_none_is_none_in_a_file_too(key: str, none: str) -> None:
    group, _, name = key.partition(".")
    values, lines = read_mapping(f"{group}: {{{name}: {none}}}", source="f.yaml")
    assert getattr(getattr(build_config(values, lines, "f.yaml"), group), name) is None


@pytest.mark.parametrize(
    ("text", "sinks"),
    [("tensorboard", ["tensorboard"]), ("wandb,mlflow", ["wandb", "mlflow"]), ("[ wandb ]", ["wandb"]), ("", [])],
)
def test_a_list_needs_no_brackets(text: str, sinks: list[str]) -> None:
    assert build_config({}, {}, "test", [f"run.sinks={text}"]).run.sinks == sinks
    assert build_config({"run": {"sinks": sinks[0] if sinks else []}}, {}, "test").run.sinks == sinks[:1]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("train.epochs=3 # three", "train.epochs: expected int; found '3 # three'"),
        ("train.max_grad_norm=", "train.max_grad_norm: expected none or float; found ''"),
        ("run.sinks=other", "run.sinks: expected a list of tensorboard or wandb or mlflow or trackio; found 'other'"),
        ("schedule.milestones=x", "schedule.milestones: expected a list of int; found 'x'"),
        ("schedule.milestones=[1", "expected a list such as [1, 2], found '[1'"),
    ],
)
def test_a_value_of_another_type_is_explained(token: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({}, {}, "test", [token])
    assert message in str(caught.value)


# Current settings of a run ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with a checkpoint that was trained with the default settings."""
    run = RunDir(tmp_path / "run")
    for folder in run.folders:
        folder.mkdir(parents=True)
    checkpoint = checkpoint_of({"model.x": torch.zeros(1)}, config=Config().model_dump(mode="json"))
    write_checkpoint(CheckpointFolder(run, keep=2).at(1), checkpoint)
    CheckpointFolder(run, keep=2).publish(1, best=True, pinned=False)
    run.config.write_text(to_yaml(Config()))
    return run


@pytest.mark.parametrize("key", [key for key in known_keys() if one_value(key) != "none"])
def test_changeable_settings_come_from_the_run_and_others_from_the_checkpoint(key: str, run: RunDir) -> None:
    """The same with a checkpoint's settings, as in export and predict, and for the run alone, as in eval."""
    edited = build_config({}, {}, "test", [f"{key}={one_value(key)}"])
    run.config.write_text(to_yaml(edited))
    expected = edited if may_change_on_resume(key) else Config()
    assert settings_now(run, Config().model_dump(mode="json")) == expected
    assert settings_now(run) == expected


def test_settings_come_from_the_run_or_the_checkpoint_if_one_is_missing(run: RunDir) -> None:
    other = build_config({}, {}, "test", ["export.opset=19"])
    assert settings_now(None, other.model_dump(mode="json")) == other
    run.config.unlink()
    assert settings_now(run, other.model_dump(mode="json")) == other
    run.config.write_text(to_yaml(other))
    (run.checkpoints / "latest").unlink()
    assert settings_now(run) == other


def test_every_command_uses_the_current_settings(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    config = make_config("data.kind=imagefolder", f"data.root={root}", "train.epochs=1")
    run = train(config, tmp_path / "runs").run.run_dir
    moved = root.rename(tmp_path / "moved")
    changes = (f"data.root={moved}", "export.opset=18", "export.safetensors=true", "export.embed_preprocess=true")
    assert train(config, tmp_path, resume=run, overrides=changes).exit_code == 0
    exports: list[command._Export] = []
    monkeypatch.setattr(command._Export, "run", lambda export, _name: exports.append(export))
    monkeypatch.setattr(command, "_require_torch", lambda: None)
    for which in ("latest", "best", "default"):
        command.export_run(run, command.ExportOptions(which=which), lambda _: None)
        export = exports[-1]
        assert (export._formats, export._source.embed, export._source.config.export.opset) == (
            ["safetensors"],
            True,
            18,
        )
    images = held_out_images(run, None, ("blue", "green", "red"))
    assert images.title(0).startswith(str(moved))
    checkpoint = str(CheckpointFolder(run, keep=2).choose("latest"))
    for model in (str(run.path), checkpoint):
        assert open_classifier(model, runs_dir=tmp_path, which="best", device="cpu").classes == ("blue", "green", "red")


# Relative folders of images --------------------------------------------------------------------------------------------


def test_a_relative_root_is_relative_to_where_the_run_was_started(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        (folder / "photos").mkdir(parents=True)

    def root(*overrides: str) -> str:
        resumed = resumed_config(run, list(overrides)).data.root
        if not overrides:
            assert settings_now(run).data.root == resumed
        return resumed

    run.config.write_text(to_yaml(build_config({}, {}, "test", ["data.kind=imagefolder", "data.root=photos"])))
    recorded = read_run_config(run).model_dump(mode="json")
    write_checkpoint(CheckpointFolder(run, keep=2).at(1), checkpoint_of({}, config=recorded))
    monkeypatch.chdir(elsewhere)
    assert root() == "photos", "an older run has not recorded its working directory"
    monkeypatch.chdir(here)
    write_env(run, {})
    assert root() == "photos"
    monkeypatch.chdir(elsewhere)
    assert root() == str(here / "photos")
    assert root("data.root=photos") == "photos", "an override is relative to the current directory"
    (here / "photos").rmdir()
    assert root() == "photos", "run and images may have moved together"
    run.env.write_text("[]")
    assert root() == "photos"


def test_a_run_is_resumed_from_another_folder(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder("photos")
    monkeypatch.chdir(tmp_path)
    config = make_config("data.kind=imagefolder", "data.root=photos", "train.epochs=1")
    run = train(config, tmp_path / "runs").run.run_dir
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path / "elsewhere", Path("/"), tmp_path):
        monkeypatch.chdir(folder)
        assert train(config, tmp_path / "runs", resume=run).exit_code == 0
    assert read_run_config(run).data.root == str(tmp_path / "photos")
