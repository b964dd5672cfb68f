"""Changes of one value in a configuration file; everything else stays as its author wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.loader import load_config, shipped_configs_dir, shipped_names
from trainer.config.yaml_editor import with_value, write_value
from trainer.config.yaml_reader import read_mapping
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("optim:\n  lr: 0.1  # tried\n", "optim:\n  lr: 0.03  # tried\n"),
        ("# mine\noptim: {momentum: 0.9, lr: 1e-1}\n", "# mine\noptim: {momentum: 0.9, lr: 0.03}\n"),
        ('optim:\r\n    "lr": 0.1\r\n    nesterov: true\r\n', 'optim:\r\n    "lr": 0.03\r\n    nesterov: true\r\n'),
        (
            "optim:\n    # of Nesterov\n    momentum: 0.9\n",
            "optim:\n    # of Nesterov\n    lr: 0.03\n    momentum: 0.9\n",
        ),
        ("optim: {momentum: 0.9}", "optim: {lr: 0.03, momentum: 0.9}"),
        ("run:\n  name: a", "run:\n  name: a\noptim:\n  lr: 0.03\n"),
        ("", "optim:\n  lr: 0.03\n"),
    ],
)
def test_only_the_value_changes(before: str, after: str) -> None:
    assert with_value(before, "optim.lr", 0.03, source="mine.yaml") == after


@pytest.mark.parametrize(
    "text", ["optim:\n", "optim: {}\n", "optim: none\n", "{run: {name: a}}\n", "run:\n  name: a\n...\n"]
)
def test_a_file_that_cannot_be_edited_safely_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"edit it and set optim.lr: 0.03"):
        with_value(text, "optim.lr", 0.03, source="mine.yaml")


@given(value=st.floats(1e-8, 100.0))
def test_a_written_rate_is_read_back(value: float) -> None:
    text = with_value("optim:\n  lr: 0.1\n", "optim.lr", value, source="mine.yaml")
    assert read_mapping(text, source="mine.yaml")[0] == {"optim": {"lr": pytest.approx(value, rel=1e-5)}}


def test_every_shipped_configuration_can_be_changed() -> None:
    for name in shipped_names():
        text = (shipped_configs_dir() / f"{name}.yaml").read_text()
        changed = with_value(text, "optim.lr", 0.03, source=name)
        differing = set(changed.splitlines()) ^ set(text.splitlines())
        assert len(differing) <= 2, f"{name}: {differing}"


def test_a_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    target = tmp_path / "real.yaml"
    target.write_text("optim:\n  lr: 0.1\n")
    target.chmod(0o640)
    link = tmp_path / "mine.yaml"
    link.symlink_to(target)
    write_value(link, "optim.lr", 0.03)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert load_config(str(link)).config.optim.lr == 0.03


def test_an_unwritable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: optim\.lr cannot be written: .*No such file"):
        write_value(tmp_path / "nowhere.yaml", "optim.lr", 0.03)
