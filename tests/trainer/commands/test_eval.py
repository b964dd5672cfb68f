"""`eval`: figures compared with independent computations; the command on held-out images and on folders."""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import TINY, ConfigMaker, FolderMaker, needs_exporter, write_colours
from tests.support.running import train, view_of
from trainer.commands import eval as eval_command
from trainer.commands import predict
from trainer.commands import predict as predict_command
from trainer.commands.eval import main, run_of
from trainer.config.loader import build_config
from trainer.data.folder.decoder import Decoder
from trainer.errors import ConfigError, DataError, RunError
from trainer.evaluation.evaluate import _predictions
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.session.export_run import ExportOptions, export_run

pytestmark = pytest.mark.usefixtures("narrow_module")


def evaluate(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    eval_command.add_arguments(parser)
    return main(parser.parse_args(list(arguments)))


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory, narrow_module: None) -> Path:
    """A run on a flat folder, of which it held out the test images itself."""
    base = tmp_path_factory.mktemp("flat")
    write_colours(base / "images", splits=("train",), per_class=24, size=(20, 30))
    divided = ("data.val_fraction=0.2", "data.test_fraction=0.25")
    calm = ("data.image_size=16", "optim.lr=0.01", "train.epochs=6")
    settings = ("data.kind=imagefolder", f"data.root={base / 'images' / 'train'}", *divided, *calm)
    train(build_config({}, {}, "test", [*TINY, *settings]), base / "runs")
    return base


@pytest.fixture
def run(trained_once: Path, tmp_path: Path) -> RunDir:
    """A copy of that run with its own images."""
    shutil.copytree(trained_once, tmp_path / "flat")
    run = RunDir(tmp_path / "flat" / "runs" / "run")
    run.config.write_text(run.config.read_text().replace(str(trained_once), str(tmp_path / "flat")))
    return run


def test_a_run_is_evaluated_on_its_held_out_images(
    run: RunDir, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert evaluate(str(run.path), "--which", "best") == 0
    printed = capsys.readouterr().out
    report = json.loads((run.evaluation / "test" / "report.json").read_text())
    (tested,) = [event for event in view_of(run).evaluations if event.split == "test"]
    assert report["images"] == sum(tested.counts) == 18
    assert report["accuracy"] == pytest.approx(tested.accuracy, abs=1e-6)
    assert report["loss"] == pytest.approx(tested.loss, abs=1e-5)
    assert f"accuracy            {tested.accuracy:.2%}" in printed
    with (run.evaluation / "test" / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["correct"]) for row in rows] == tested.correct
    with (run.evaluation / "test" / "mistakes.csv").open() as file:
        mistakes = list(csv.DictReader(file))
    assert len(mistakes) == 18 - sum(tested.correct)
    assert all(Path(row["path"]).parent.name == row["class"] != row["predicted"] for row in mistakes)
    assert set(report["robustness"]) == {"none", "noise", "blur", "JPEG"}
    assert report["robustness"]["none"] == {"18 images": pytest.approx(report["accuracy"], abs=1e-6)}


def test_a_report_is_not_written_through_a_link(run: RunDir, tmp_path: Path) -> None:
    """A report written elsewhere does not touch the link."""
    (tmp_path / "outside").mkdir()
    shutil.rmtree(run.evaluation, ignore_errors=True)
    run.evaluation.symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=f"eval: is a link to {tmp_path / 'outside'}"):
        evaluate(str(run.path), "--no-robustness")
    assert list((tmp_path / "outside").iterdir()) == []
    assert evaluate(str(run.path), "--no-robustness", "-o", str(tmp_path / "report")) == 0
    assert (tmp_path / "report" / "report.json").is_file()


@needs_exporter
def test_an_exported_file_has_the_results_of_its_run(run: RunDir, tmp_path: Path) -> None:
    export_run(run, ExportOptions(which="best", data_root=Path(read_run_config(run).data.root)), lambda _: None)
    assert evaluate(str(run.path), "--which", "best", "--no-robustness", "-o", str(tmp_path / "a")) == 0
    assert evaluate(str(run.export / "model.onnx"), "--no-robustness", "-o", str(tmp_path / "b")) == 0
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in "ab")
    assert first["accuracy"] == second["accuracy"]
    assert first["loss"] == pytest.approx(second["loss"], abs=1e-5)
    assert (tmp_path / "a" / "confusion.csv").read_text() == (tmp_path / "b" / "confusion.csv").read_text()


def test_two_models_are_compared_on_the_same_images(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    first = next(iter(sorted(run.checkpoints.glob("step-*.safetensors"))))
    assert evaluate(str(first), str(run.path)) == 0
    printed = capsys.readouterr().out
    assert "18 images of test" in printed
    assert "McNemar's exact test: p = " in printed
    assert not (run.evaluation / "test" / "report.json").exists()


def test_a_run_can_be_evaluated_on_other_images(run: RunDir, make_folder: FolderMaker, tmp_path: Path) -> None:
    """The model's list of classes counts: a missing class keeps its number, an unknown one is refused."""
    other = make_folder("other", splits=("train", "test"), size=(20, 30))
    shutil.rmtree(other / "test" / "blue")
    assert evaluate(str(run.path), "--data", str(other), "--no-robustness", "-o", str(tmp_path / "out")) == 0
    with (tmp_path / "out" / "per_class.csv").open() as file:
        assert [(row["class"], row["images"]) for row in csv.DictReader(file)] == [
            ("blue", "0"), ("green", "12"), ("red", "12"),
        ]  # fmt: skip
    (other / "test" / "pink").mkdir()
    with pytest.raises(
        DataError, match="class folder 'pink' is not a class of the model, whose classes are blue, green, red"
    ):
        evaluate(str(run.path), "--data", str(other))
    with pytest.raises(DataError, match="has no val/"):
        evaluate(str(run.path), "--data", str(other), "--split", "val")
    with pytest.raises(DataError, match="no such folder"):
        evaluate(str(run.path), "--data", str(tmp_path / "nowhere"))


def test_a_broken_image_is_reported_and_not_evaluated(
    run: RunDir, make_folder: FolderMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results of the other images are the same as without the broken one."""
    other = make_folder("other", splits=("test",), size=(20, 30))
    (broken := other / "test" / "blue" / "003.png").write_text("no image")
    arguments = (str(run.path), "--data", str(other), "--no-robustness", "-o")
    assert evaluate(*arguments, str(tmp_path / "with")) == 0
    assert f"unreadable, not evaluated: {broken}: " in capsys.readouterr().out
    broken.unlink()
    assert evaluate(*arguments, str(tmp_path / "without")) == 0
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("with", "without")]
    assert [entry["path"] for entry in reports[0].pop("unreadable")] == [str(broken)]
    assert reports[1].pop("unreadable") == []
    assert [len(report.pop("remarks")) for report in reports] == [1, 1], "the number of images that it was trained on"
    assert reports[0] == reports[1]
    assert reports[0]["images"] == 35
    for name in ("per_class.csv", "confusion.csv", "mistakes.csv"):
        assert (tmp_path / "with" / name).read_text() == (tmp_path / "without" / name).read_text(), name


def test_the_digits_are_evaluated_without_files(make_config: ConfigMaker, tmp_path: Path) -> None:
    run = train(
        make_config("train.epochs=1", "data.batch_size=256", "data.image_size=16"), tmp_path / "runs"
    ).run.run_dir
    assert evaluate(str(run.path), "--no-robustness") == 0
    report = json.loads((run.evaluation / "test" / "report.json").read_text())
    assert report["images"] == 360
    assert report["accuracy"] == pytest.approx(view_of(run).evaluations[-1].accuracy, abs=1e-6)
    assert report["top5"] > report["accuracy"]


def test_other_digits_than_those_of_the_run_are_reported(
    make_config: ConfigMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(make_config("train.epochs=1", "data.batch_size=256"), tmp_path).run.run_dir
    assert evaluate(str(run.path), "--no-robustness") == 0
    assert "have changed" not in capsys.readouterr().out
    run.events.write_text(re.sub(r'("fingerprint": ?")\w', r"\1-", run.events.read_text()))
    assert evaluate(str(run.path), "--no-robustness") == 0
    assert "warning: the images have changed since the run was trained" in capsys.readouterr().out


def test_an_impossible_evaluation_is_explained(run: RunDir, make_config: ConfigMaker, tmp_path: Path) -> None:
    digits = train(make_config("train.epochs=1", "data.batch_size=256"), tmp_path / "digits").run.run_dir
    with pytest.raises(ConfigError, match="has other classes than"):
        evaluate(str(run.path), str(digits.path))
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run.checkpoints / "step-00000024.safetensors", alone)
    assert run_of(str(alone), tmp_path) is None
    with pytest.raises(ConfigError, match="belongs to no run; give images with known classes: --data DIR"):
        evaluate(str(alone))
    with pytest.raises(DataError, match="the run has no val images; it has train, test"):
        evaluate(str(digits.path), "--split", "val")


def test_a_changed_folder_is_reported_or_refused(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(read_run_config(run).data.root)
    for number in range(20):
        shutil.copy(root / "red" / f"{number:03d}.png", root / "red" / f"new-{number}.png")
    assert evaluate(str(run.path), "--no-robustness") == 0
    assert (
        "warning: the images have changed since the run was trained; the held-out ones depend on all of them"
        in capsys.readouterr().out
    )
    (root / "red").rename(root / "zred")
    with pytest.raises(DataError, match="its classes are blue, green, zred, but the model's are blue, green, red"):
        evaluate(str(run.path))


def test_copies_of_training_images_are_recognised_by_content(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copies under other names in another folder count, held-out and changed ones do not."""
    started = view_of(run).started
    assert started is not None
    pictures = sorted(Path(read_run_config(run).data.root).rglob("*.png"))
    copies = tmp_path / "copies"
    for number, path in enumerate(pictures):
        copy = copies / path.parent.name / f"other-{number}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert evaluate(str(run.path), "--data", str(copies), "--no-robustness") == 0
    printed = re.search(r"was trained on (\d+) of these (\d+) images", capsys.readouterr().out)
    assert printed is not None
    assert (int(printed[1]), int(printed[2])) == (started.splits["train"], len(pictures))
    for path in copies.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")  # other content, still of one size
    assert evaluate(str(run.path), "--data", str(copies), "--no-robustness") == 0
    assert "was trained on" not in capsys.readouterr().out


def test_a_compared_model_that_was_trained_on_the_images_is_named(
    run: RunDir, make_config: ConfigMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With another seed, other images of the same folder are held out."""
    config = read_run_config(run)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 5, "name": "other"})})
    second = train(other, tmp_path / "runs").run.run_dir
    assert evaluate(str(run.path), str(second.path), "-o", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert re.search(
        rf"warning: {second.path} was trained on \d+ of these 18 images, which inflates its accuracy", printed
    )
    assert f"warning: {run.path} was" not in printed
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert len(report["remarks"]) == 1
    assert 0 <= report["p_value"] <= 1
    assert (tmp_path / "out" / "disagreements.csv").read_text().startswith("path,class,first,second\n")


def test_other_evaluations_do_not_replace_the_runs_own_report(
    run: RunDir, make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_folder("other", splits=("test",), size=(20, 30))
    assert evaluate(str(run.path), "--data", str(other), "--no-robustness") == 0
    checkpoint = next(iter(sorted(run.checkpoints.glob("step-*.safetensors"))))
    assert evaluate(str(checkpoint), "--no-robustness") == 0
    monkeypatch.chdir(other / "test")
    assert evaluate(str(run.path), "--data", "..", "--no-robustness") == 0
    written = {path.name for path in run.evaluation.iterdir()}
    assert {"data-test", f"test-{checkpoint.stem}"} <= written
    assert not (run.evaluation / "test" / "report.json").exists()
    assert not (run.path / "report.json").exists()


class Broken:
    """A classifier with non-finite answers for some images."""

    origin, classes = "broken", ("blue", "green", "red")

    def __init__(self, decoder: Decoder, share: float) -> None:
        self.decoder = decoder
        self._share = share

    def probabilities(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        answers = np.tile(np.array([[0.2, 0.1, 0.7]], np.float32), (len(pixels_NHWC), 1))
        answers[: round(self._share * len(answers))] = np.nan
        return answers


@pytest.mark.parametrize(("share", "code"), [(1.0, 1), (0.5, 1), (0.0, 0)])
def test_eval_and_predict_report_a_broken_model(
    share: float, code: int, make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = Broken(Decoder(image_size=8, crop_pct=1.0, fit="crop"), share)
    folder = make_folder()
    monkeypatch.setattr(eval_command, "open_classifier", lambda *_, **__: model)
    monkeypatch.setattr(eval_command, "run_of", lambda *_: None)
    monkeypatch.setattr(predict, "open_classifier", lambda *_, **__: model)
    assert evaluate("broken", "--data", str(folder), "-o", str(tmp_path / "report")) == code
    printed = capsys.readouterr().out
    report = json.loads(
        (tmp_path / "report" / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert ("returns NaN or infinity" in printed) == (report["nonfinite_answers"] > 0) == bool(code)
    assert ("predicts only one class: red" in printed) == (share < 1)
    assert report["accuracy"] <= 0.34
    assert evaluate("broken", "broken", "--data", str(folder)) == code
    capsys.readouterr()
    parser = argparse.ArgumentParser()
    predict_command.add_arguments(parser)
    assert predict.main(parser.parse_args(["broken", str(folder), "--format", "json"])) == code
    captured = capsys.readouterr()
    json.loads(captured.out, parse_constant=lambda name: pytest.fail(name))
    assert ("no prediction: the model returns NaN" in captured.err) == bool(code)


def test_evaluations_during_training_count_non_finite_answers_as_wrong() -> None:
    logits = torch.tensor([[2.0, 1.0], [np.nan, 1.0], [1.0, np.inf], [0.0, 3.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert (_predictions(logits, labels) == labels).tolist() == [True, False, False, True]
