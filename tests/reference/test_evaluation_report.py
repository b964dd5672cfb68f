"""Files and printed lines of `eval`, compared with plain arithmetic; one of the images is broken."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reference.evaluation_pictures import NumberClassifier, write_images
from tests.reference.evaluation_statistics import calibration_error, mcnemar_p, plain_classes, wilson
from tests.support.progress import quiet
from trainer.evaluation.classifier_evaluation import evaluate_classifiers
from trainer.evaluation.evaluation_report import comparison_lines, report_lines, write_comparison, write_report
from trainer.evaluation.image_sources import FileImages

NUMBER, CLASSES, BROKEN = 30, 4, 5
KEPT = [number for number in range(NUMBER) if number != BROKEN]
LABELS = np.array([number % 3 for number in range(NUMBER)])  # the last class has no images


def models() -> list[NumberClassifier]:
    """A model that is right for two of three images, and one that is mostly wrong."""
    tables = [NumberClassifier.random(NUMBER, CLASSES, seed).table_MK for seed in (1, 2)]
    for number in range(NUMBER):
        if number % 3 < 2:
            put_first(tables[0][number], int(LABELS[number]))
    return [NumberClassifier(table) for table in tables]


def put_first(probabilities_K: NDArray[np.float32], label: int) -> None:
    """Make a class the most probable one."""
    best = int(probabilities_K.argmax())
    probabilities_K[[label, best]] = probabilities_K[[best, label]]


@pytest.fixture
def images(tmp_path: Path) -> FileImages:
    """The images; reports go to another folder."""
    return FileImages("test", write_images(tmp_path / "pictures", NUMBER, [BROKEN]), LABELS)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_figures_of_a_report_are_those_of_the_readable_images(images: FileImages, tmp_path: Path) -> None:
    model = models()[0]
    (measured,) = evaluate_classifiers([model], images, batch_size=7, progress=quiet)
    write_report(tmp_path / "report", model, images, measured, None)
    report: dict[str, Any] = json.loads((tmp_path / "report" / "report.json").read_text())
    labels, answers = [int(LABELS[n]) for n in KEPT], [int(model.table_MK[n].argmax()) for n in KEPT]
    rows = model.table_MK[KEPT].astype(np.float64)
    right = [a == b for a, b in zip(labels, answers, strict=True)]
    plain = plain_classes(labels, answers, CLASSES)
    assert report["images"] == 29
    assert [entry["path"] for entry in report["unreadable"]] == [images.paths[BROKEN]]
    assert report["accuracy"] == pytest.approx(sum(right) / 29, abs=1e-6)
    assert report["accuracy_interval95"] == pytest.approx(wilson(sum(right), 29), abs=1e-6)
    assert report["balanced_accuracy"] == pytest.approx(
        sum(one.correct / one.images for one in plain[:3]) / 3, abs=1e-6
    )
    assert report["majority_baseline"] == pytest.approx(10 / 29, abs=1e-6)
    assert report["loss"] == pytest.approx(-np.log(rows[np.arange(29), labels]).mean(), abs=1e-6)
    assert report["calibration_error"] == pytest.approx(calibration_error(rows.max(1).tolist(), right), abs=1e-6)
    assert sum(entry["images"] for entry in report["calibration"]) == 29
    for line, one, name in zip(table(tmp_path / "report" / "per_class.csv"), plain, model.classes, strict=True):
        shares = (one.recall, *(wilson(one.correct, one.images) if one.images else (None, None)), one.precision, one.f1)
        names = ("accuracy", "low95", "high95", "precision", "f1")
        for column, share in zip(names, shares, strict=True):
            assert line[column] == ("" if share is None else f"{share:.6f}"), column
        assert (line["class"], line["images"], line["correct"]) == (name, str(one.images), str(one.correct))
        assert line["most_confused_with"] == (model.classes[one.confusions[0][0]] if one.confusions else "")
    pairs = list(zip(labels, answers, strict=True))
    for label, line in enumerate(table(tmp_path / "report" / "confusion.csv")):
        assert line.pop("true \\ predicted") == model.classes[label]
        assert line == {name: str(pairs.count((label, other))) for other, name in enumerate(model.classes)}


def test_every_mistake_has_its_own_path(images: FileImages, tmp_path: Path) -> None:
    model = models()[0]
    (measured,) = evaluate_classifiers([model], images, batch_size=7, progress=quiet)
    write_report(tmp_path / "report", model, images, measured, None)
    answers = model.table_MK.argmax(1)
    wrong = sorted((n for n in KEPT if answers[n] != LABELS[n]), key=lambda n: -model.table_MK[n].max())
    assert len(wrong) > 5
    assert table(tmp_path / "report" / "mistakes.csv") == [
        {
            "path": images.paths[n], "class": model.classes[LABELS[n]], "predicted": model.classes[answers[n]],
            "probability": f"{model.table_MK[n].max():.6f}",
        }
        for n in wrong
    ]  # fmt: skip
    lines = report_lines(model, images, measured, None)
    start = lines.index("  most confident mistakes") + 1
    assert [line.rpartition(": ")[2] for line in lines[start : start + 5]] == [images.paths[n] for n in wrong[:5]]


def test_printed_lines_have_the_figures_and_the_worst_class_first(images: FileImages) -> None:
    model = models()[0]
    (measured,) = evaluate_classifiers([model], images, batch_size=NUMBER, progress=quiet)
    robustness = {"none": {"9 images": 0.5}, "noise": {"a": 0.25, "b": 0.125}}
    text = "\n".join(report_lines(model, images, measured, robustness))
    answers = model.table_MK[KEPT].argmax(1).tolist()
    plain = plain_classes(LABELS[KEPT].tolist(), answers, CLASSES)
    accuracy = sum(one.correct for one in plain) / 29
    low, high = wilson(sum(one.correct for one in plain), 29)
    assert f"  accuracy            {accuracy:.2%}   (95 % interval {low:.2%} to {high:.2%})" in text
    assert f"(guessing: {1 / 3:.2%})" in text, "chance among the three classes with images"
    assert f"  most frequent class {10 / 29:.2%} " in text
    assert "top-5" not in text
    assert "  unchanged   9 images 50.0%\n  noise       a 25.0%,  b 12.5%" in text
    shown = re.findall(r"^  (class \d) +(\d+) ", text, re.MULTILINE)
    recalls = {name: one.recall for name, one in zip(model.classes, plain, strict=True)}
    order = sorted((name for name in model.classes[:3]), key=lambda name: recalls[name] or 0.0)
    assert [name for name, _ in shown] == [*order, "class 3"]
    assert shown[-1] == ("class 3", "0")
    assert f"unreadable, not evaluated: {images.paths[BROKEN]}: " in text


def test_a_comparison_lists_the_images_on_which_two_models_differ(images: FileImages, tmp_path: Path) -> None:
    both = models()
    measured = evaluate_classifiers(list(both), images, batch_size=7, progress=quiet)
    write_comparison(tmp_path / "report", both, images, measured)
    report = json.loads((tmp_path / "report" / "comparison.json").read_text())
    answers = [model.table_MK.argmax(1) for model in both]
    differ = [n for n in KEPT if (answers[0][n] == LABELS[n]) != (answers[1][n] == LABELS[n])]
    assert table(tmp_path / "report" / "disagreements.csv") == [
        {
            "path": images.paths[n], "class": both[0].classes[LABELS[n]],
            "first": both[0].classes[answers[0][n]], "second": both[0].classes[answers[1][n]],
        }
        for n in differ
    ]  # fmt: skip
    first = sum(bool(answers[0][n] == LABELS[n]) for n in differ)
    second = len(differ) - first
    assert (report["only_first"], report["only_second"], report["images"]) == (first, second, 29)
    assert report["p_value"] == pytest.approx(mcnemar_p(first, second))
    assert report["difference"] == pytest.approx((second - first) / 29, abs=1e-6)
    assert [entry["path"] for entry in report["unreadable"]] == [images.paths[BROKEN]]
    for entry, answer in zip(report["models"], answers, strict=True):
        assert entry["accuracy"] == pytest.approx(float((answer == LABELS)[KEPT].mean()), abs=1e-6)


@pytest.mark.parametrize(
    ("swapped", "equal", "verdict"),
    [(False, False, "A is better"), (True, False, "B is better"), (False, True, "no significant difference")],
)
def test_the_better_model_is_named_if_the_difference_is_significant(
    images: FileImages, swapped: bool, equal: bool, verdict: str
) -> None:
    good, bad = models()
    pair = [good, good] if equal else [bad, good] if swapped else [good, bad]
    measured = evaluate_classifiers(list(pair), images, batch_size=7, progress=quiet)
    lines = comparison_lines(pair, images, measured)
    share: Callable[[NumberClassifier], float] = lambda model: float((model.table_MK.argmax(1) == LABELS)[KEPT].mean())  # noqa: E731
    assert (mcnemar(pair) < 0.05) == (not equal)
    assert verdict in "\n".join(lines)
    for letter, model in zip("AB", pair, strict=True):
        (line,) = [line for line in lines if line.startswith(f"  {letter}  ")]
        assert f"{share(model):.2%}" in line
    assert f"{share(pair[1]) - share(pair[0]):+.2%}" in "\n".join(lines)


def mcnemar(pair: list[NumberClassifier]) -> float:
    """Probability that two equally good models differ that much on the readable images."""
    first, second = ((model.table_MK.argmax(1) == LABELS)[KEPT] for model in pair)
    return mcnemar_p(int((first & ~second).sum()), int((second & ~first).sum()))
