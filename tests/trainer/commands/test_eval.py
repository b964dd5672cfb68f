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
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import TINY, ConfigMaker, FolderMaker, needs_exporter, write_colours
from tests.reference.evaluation_statistics import paired_difference
from tests.support.running import train, view_of
from trainer.commands import eval as eval_command
from trainer.commands import predict
from trainer.commands import predict as predict_command
from trainer.commands.eval import main, run_of
from trainer.config.loader import build_config
from trainer.data.folder.decoder import Decoder
from trainer.errors import ConfigError, DataError, RunError
from trainer.evaluation.classifier_evaluation import CORRUPTIONS, corrupt_batch
from trainer.evaluation.evaluate import _predictions
from trainer.evaluation.scores import Scores, class_scores, compare
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.view.class_score import wilson_interval
from trainer.session.export_run import ExportOptions, export_run

pytestmark = pytest.mark.usefixtures("narrow_module")


def scores(labels: list[int], answers: list[int], confidence: float = 0.9, num_classes: int = 3) -> Scores:
    probabilities = np.full((len(labels), num_classes), (1 - confidence) / (num_classes - 1), np.float32)
    probabilities[np.arange(len(labels)), answers] = confidence
    return Scores(probabilities, np.array(labels))


def test_each_class_has_precision_recall_and_f1() -> None:
    confusion = np.array([[8, 2, 0], [1, 4, 0], [0, 0, 0]])
    first, second, absent = class_scores(confusion)
    assert (first.precision, first.recall) == (8 / 9, 0.8)
    assert first.f1 == pytest.approx(2 * (8 / 9) * 0.8 / (8 / 9 + 0.8))
    assert (second.images, second.predicted, second.confused_with) == (5, 6, 0)
    assert (absent.recall, absent.precision, absent.f1, absent.interval) == (None, None, None, None)


def test_balanced_accuracy_and_baseline_show_imbalance() -> None:
    lazy = scores([0] * 90 + [1] * 10, [0] * 100)
    assert lazy.accuracy == 0.9
    assert lazy.majority_baseline == 0.9
    assert lazy.balanced_accuracy == 0.5, "the class without images does not count"


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilson_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    sure = scores([0, 0, 1, 1], [0, 0, 1, 0], confidence=0.95)
    assert sure.calibration_error == pytest.approx(0.2, abs=1e-6)
    ((count, confidence, accuracy),) = sure.calibration
    assert (count, round(confidence, 4), accuracy) == (4, 0.95, 0.75)
    assert sure.loss == pytest.approx(-(3 * np.log(0.95) + np.log(0.025)) / 4, abs=1e-6)


def test_top5_is_reported_only_for_many_classes() -> None:
    assert scores([0, 1], [0, 0]).top5 is None
    probabilities = np.tile((np.arange(12) / 66).astype(np.float32), (12, 1))
    assert Scores(probabilities, np.arange(12)).top5 == pytest.approx(5 / 12)


def test_the_most_confident_mistakes_come_first() -> None:
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], np.float32)
    assert Scores(probabilities, np.array([0, 0, 0, 1])).confident_mistakes(5) == [0, 2]


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (2, 8, 0.109375), (10, 30, 0.0022), (7, 7, 1.0), (600, 700, 0.00602)],
)
def test_mcnemars_test_is_exact(b: int, c: int, p: float) -> None:
    labels = [0] * (b + c + 50)
    first = scores(labels, [0] * b + [1] * c + [0] * 50)
    second = scores(labels, [1] * b + [0] * c + [0] * 50)
    result = compare(first, second)
    assert (result.only_first, result.only_second) == (b, c)
    assert result.p_value == pytest.approx(p, rel=0.02)
    difference, interval = paired_difference(first.right.tolist(), second.right.tolist())
    assert result.difference == pytest.approx(difference) == pytest.approx((c - b) / len(labels))
    assert result.interval == pytest.approx(interval)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_figures_agree_with_each_other(pairs: list[tuple[int, int]]) -> None:
    labels, answers = [a for a, _ in pairs], [b for _, b in pairs]
    result = scores(labels, answers, num_classes=4)
    assert result.accuracy == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert int(result.confusion.sum()) == len(pairs)
    assert sum(score.correct for score in result.classes) == int(result.right.sum())
    assert result.interval[0] <= result.accuracy <= result.interval[1]
    assert result.calibration_error is not None
    assert 0 <= result.calibration_error <= 1


def test_corruptions_grow_with_strength_and_are_reproducible() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    smooth = np.repeat(np.repeat(pixels[:, ::16, ::16], 16, axis=1), 16, axis=2)
    for strengths in CORRUPTIONS.values():
        distances = [
            np.abs(corrupt_batch(damage, smooth, 5).astype(int) - smooth).mean() for damage in strengths.values()
        ]
        assert distances == sorted(distances)
        assert distances[0] > 0
        damage = next(iter(strengths.values()))
        assert (corrupt_batch(damage, smooth[1:], 6) == corrupt_batch(damage, smooth, 5)[1:]).all()


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


NONFINITE = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("value", NONFINITE)
def test_non_finite_answers_are_wrong_and_counted(value: float) -> None:
    labels = np.array([0, 0, 0, 1, *range(12)])
    probabilities = np.full((len(labels), 12), 0.01, np.float32)
    probabilities[np.arange(len(labels)), labels] = 0.89
    whole = Scores(probabilities.copy(), labels)
    assert (whole.accuracy, whole.top5, whole.num_nonfinite) == (1.0, 1.0, 0)
    probabilities[:3, 5] = value
    probabilities[3] = value
    result = Scores(probabilities, labels)
    assert result.num_nonfinite == 4
    assert result.accuracy == result.top5 == pytest.approx(12 / 16)
    assert result.calibration_error == pytest.approx(whole.calibration_error, abs=1e-6)
    assert result.loss == np.inf
    assert [result.classes[label].recall for label in (0, 1, 2)] == [0.25, 0.5, 1.0], (
        "the number of images does not change"
    )
    assert result.classes[5].precision == 1.0, "a non-finite answer counts for no class"
    assert result.majority_baseline == whole.majority_baseline
    assert result.confident_mistakes(9) == []
    nothing = Scores(np.full_like(probabilities, value), labels)
    assert (nothing.accuracy, nothing.top5, nothing.calibration_error, nothing.only_predicted) == (0.0, 0.0, None, None)


def test_a_constant_model_is_recognised_and_does_not_gain_top5() -> None:
    labels = np.arange(20)
    same = Scores(np.full((20, 20), 0.05, np.float32), labels)
    assert (same.only_predicted, same.accuracy, same.top5) == (0, 0.05, 0.25)
    assert scores([0, 1, 2], [2, 2, 2]).only_predicted == 2
    assert scores([0, 1], [0, 1]).only_predicted is None
    assert scores([1, 1], [1, 1]).only_predicted is None, "images of one class only"
    assert scores([0, 1, 1], [0, 1, 1], num_classes=40).num_present == 2, "guessing among the classes that occur"


@given(
    st.integers(10, 14), st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5]), min_size=14, max_size=14), min_size=1)
)
def test_top5_breaks_ties_by_class_number(classes: int, rows: list[list[float]]) -> None:
    rows = [row[:classes] for row in rows]
    labels = np.arange(len(rows)) % classes
    five = [[label for _, label in sorted((-p, label) for label, p in enumerate(row))[:5]] for row in rows]
    expected = np.mean([label in those for label, those in zip(labels, five, strict=True)])
    assert Scores(np.array(rows, np.float32), labels).top5 == pytest.approx(expected)


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
