"""`audit`: planted wrong labels and copies are found from a run's features, and every table agrees."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, ConfigMaker, FolderMaker, write_colours
from tests.support.running import train
from trainer.commands.audit import add_arguments, main
from trainer.config.loader import build_config
from trainer.errors import CheckpointError, ConfigError, DataError, RunError
from trainer.run.folder.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory, narrow_module: None) -> RunDir:
    """A run on the colours red, green and blue."""
    base = tmp_path_factory.mktemp("backbone")
    write_colours(base / "seen")
    settings = ("data.kind=imagefolder", f"data.root={base / 'seen'}", "data.crop_pct=1.0", "train.epochs=6")
    return train(build_config({}, {}, "test", [*TINY, *settings]), base / "runs").run.run_dir


def run_audit(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(arguments))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_wrong_labels_and_copies_are_found(
    backbone: RunDir, make_folder: FolderMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder("unseen", per_class=20, size=(24, 20))
    wrong = root / "train" / "green" / "000.png"
    os.replace(root / "train" / "red" / "000.png", wrong)
    shutil.copy(root / "train" / "blue" / "007.png", root / "test" / "blue" / "copy.png")
    output = tmp_path / "tables"
    assert run_audit(str(root), "--features", str(backbone.path), "-o", str(output), "--top", "3") == 0
    printed = capsys.readouterr().out
    first = table(output / "labels.csv")[0]
    assert (first["path"], first["class"], first["suggested"]) == ("train/green/000.png", "green", "red")
    assert first["doubtful"] == "yes"
    assert "green, " in printed
    assert "red: train/green/000.png" in printed
    (pair,) = [row for row in table(output / "copies.csv") if "copy.png" in row["path"] + row["copy_of"]]
    assert {pair["path"], pair["copy_of"]} == {"train/blue/007.png", "test/blue/copy.png"}
    facts = json.loads((output / "audit.json").read_text())
    assert facts["pictures"] == len(table(output / "labels.csv")) == 120
    assert facts["copies_in_several_splits"] >= 1
    assert facts["doubtful_labels"] == sum(row["doubtful"] == "yes" for row in table(output / "labels.csv"))


def test_a_run_names_its_folder_and_keeps_the_tables(backbone: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_audit(str(backbone.path)) == 0
    assert len(table(backbone.path / "audit" / "labels.csv")) == 72
    assert "the features are those of a run that has learned these labels" in capsys.readouterr().out


def test_unreadable_pictures_are_counted_and_left_out(
    backbone: RunDir, make_folder: FolderMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder("unseen")
    (root / "train" / "red" / "003.png").write_bytes(b"no picture")
    assert run_audit(str(root), "--features", str(backbone.path), "-o", str(tmp_path / "tables")) == 0
    printed = capsys.readouterr().out
    assert "unreadable 1, not examined: " in printed
    assert str(root / "train" / "red" / "003.png") in printed
    assert [row["path"] for row in table(tmp_path / "tables" / "unreadable.csv")] == [
        str(root / "train" / "red" / "003.png")
    ]
    assert "train/red/003.png" not in {row["path"] for row in table(tmp_path / "tables" / "labels.csv")}


def test_what_cannot_be_audited_is_refused(
    backbone: RunDir, make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="nothing: no run of this name"):
        run_audit("nothing", "--runs-dir", str(tmp_path / "runs"))
    with pytest.raises(CheckpointError, match=r"--features: nothing"):
        run_audit(str(make_folder("one")), "--features", "nothing", "--runs-dir", str(tmp_path / "runs"))
    with pytest.raises(CheckpointError, match="none has no features"):
        run_audit(str(make_folder("two")), "--features", "none")
    with pytest.raises(DataError, match="blue has 4 pictures; an audit needs 5"):
        run_audit(str(make_folder("few", per_class=2)), "--features", str(backbone.path))
    digits = train(make_config("train.epochs=1", "data.batch_size=512"), tmp_path / "digits").run.run_dir
    with pytest.raises(ConfigError, match="was trained on digits"):
        run_audit(str(digits.path))
