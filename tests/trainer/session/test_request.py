"""A validated request reaches another process unchanged."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import ConfigMaker
from trainer.config.plain_config import PlainConfig
from trainer.config.yaml_reader import read_mapping
from trainer.run.folder.run_dir import RunDir
from trainer.session.request import Request


def test_a_request_is_read_back_from_its_line(make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config(
        "optim.lr=0.1", "schedule.name=step", "schedule.milestones=[1, 2]", "data.mean=[0.1, 0.2, 1.0]"
    )
    for resumed in (None, RunDir(tmp_path / "ö\n[red]")):
        request = Request(settings=PlainConfig.of(config), runs_dir=tmp_path, resumed=resumed, remark="ä\nb")
        line = request.to_json()
        assert b"\n" not in line
        assert Request.from_json(line) == request
        assert Request.from_json(line).settings.typed == config


def test_plain_values_and_yaml_are_equal(make_config: ConfigMaker) -> None:
    settings = PlainConfig.of(make_config("ui.redraw_hz=1", "train.max_grad_norm=1e-3"))
    assert read_mapping(settings.yaml, source="test")[0] == settings.values
