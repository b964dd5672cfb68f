"""Report of an evaluation, for the terminal and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.evaluation.classifier import Classifier
from trainer.evaluation.image_sources import LabelledImages
from trainer.evaluation.scores import NO_PREDICTION, ClassifierResult, Scores, compare
from trainer.evaluation.tables import as_csv, write_class_tables
from trainer.host.atomic_files import write_atomically

_MISTAKES_KEPT = 1000
_MISTAKES_SHOWN = 5
_CLASSES_SHOWN = 30

Robustness = dict[str, dict[str, float]]  # accuracy by kind and strength of the corruption


def report_lines(
    model: Classifier, images: LabelledImages, result: ClassifierResult, robustness: Robustness | None
) -> list[str]:
    """Lines of the report for the terminal."""
    scores = result.scores
    low, high = scores.interval
    lines = [f"{model.origin} on {images.name}: {len(scores.labels_N):,} images", *_warning_lines(images)]
    lines += [*(f"  warning: {remark}" for remark in prediction_remarks(model, scores)), ""]
    lines.append(f"  accuracy            {scores.accuracy:.2%}   (95 % interval {low:.2%} to {high:.2%})")
    if scores.top5 is not None:
        lines.append(f"  top-5               {scores.top5:.2%}")
    lines += [
        f"  balanced accuracy   {scores.balanced_accuracy:.2%}   (guessing: {1 / scores.num_present:.2%})",
        f"  most frequent class {scores.majority_baseline:.2%}   (accuracy of always guessing it)",
        f"  loss                {scores.loss:.4f}",
        f"  calibration (ECE)   {_percent(scores.calibration_error, 2)}   (average gap between confidence and accuracy)",
        "",
        *_class_lines(model, scores),
        *_robustness_lines(robustness),
        *_mistake_lines(model, images, result),
    ]
    return [*lines, *_lost_lines(result)]


def prediction_remarks(model: Classifier, scores: Scores) -> list[str]:
    """Reasons why a model's figures are meaningless, for people."""
    remarks = []
    if scores.num_nonfinite:
        remarks.append(
            f"{model.origin} returns NaN or infinity for {scores.num_nonfinite:,} of {len(scores.labels_N):,} images; "
            f"these count as wrong. Its weights, mean or std are damaged: train or export it again"
        )
    if scores.only_predicted is not None:
        remarks.append(f"{model.origin} predicts only one class: {model.classes[scores.only_predicted]}")
    return remarks


def comparison_lines(
    models: Sequence[Classifier], images: LabelledImages, results: Sequence[ClassifierResult]
) -> list[str]:
    """Lines that compare two models on the same images."""
    scores = [result.scores for result in results]
    found = compare(*scores)
    lines = [f"{len(scores[0].labels_N):,} images of {images.name}", *_warning_lines(images)]
    for model, score in zip(models, scores, strict=True):
        lines += [f"  warning: {remark}" for remark in prediction_remarks(model, score)]
    lines.append("")
    for name, model, score in zip("AB", models, scores, strict=True):
        low, high = score.interval
        lines.append(f"  {name}  {score.accuracy:7.2%}  ({low:.2%} to {high:.2%})  {model.origin}")
    low, high = found.interval
    lines += [
        "",
        f"  B - A  {found.difference:+.2%}  (95 % interval {low:+.2%} to {high:+.2%})",
        f"  only A is right on {found.only_first:,} images, only B on {found.only_second:,}",
        f"  McNemar's exact test: p = {found.p_value:.3g}; {_verdict(found.p_value, found.difference)}",
        *_lost_lines(results[0]),
    ]
    return lines


def write_comparison(
    folder: Path, models: Sequence[Classifier], images: LabelledImages, results: Sequence[ClassifierResult]
) -> None:
    """Write `comparison.json` and `disagreements.csv`, the images that only one model classifies correctly. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    first, second = scores = [result.scores for result in results]
    found = compare(first, second)
    facts = {
        "models": [
            {"model": m.origin, "accuracy": round(s.accuracy, 6), "nonfinite_answers": s.num_nonfinite}
            for m, s in zip(models, scores, strict=True)
        ],
        "data": images.name,
        "images": len(first.labels_N),
        "remarks": images.remarks,
        "unreadable": _unreadable(results[0]),
        "only_first": found.only_first,
        "only_second": found.only_second,
        "difference": round(found.difference, 6),
        "difference_interval95": [round(bound, 6) for bound in found.interval],
        "p_value": found.p_value,
    }
    rows: list[list[object]] = [["path", "class", "first", "second"]]
    for index, row in enumerate(results[0].rows):
        if first.right[index] != second.right[index]:
            labels = (first.labels_N[index], first.predicted[index], second.predicted[index])
            rows.append([images.title(row), *(_name(models[0], label) for label in labels)])
    write_atomically(folder / "comparison.json", (json.dumps(facts, indent=2) + "\n").encode())
    write_atomically(folder / "disagreements.csv", as_csv(rows))


def write_report(
    folder: Path, model: Classifier, images: LabelledImages, result: ClassifierResult, robustness: Robustness | None
) -> None:
    """Write `report.json`, `per_class.csv`, `confusion.csv` and `mistakes.csv`; OSError when that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = result.scores
    write_class_tables(folder, model.classes, scores.classes, scores.confusion.tolist())
    write_atomically(folder / "mistakes.csv", as_csv(_mistakes_table(model, images, result)))
    text = json.dumps(_facts(model, images, result, robustness), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "report.json", text.encode("utf-8", "backslashreplace"))


def _warning_lines(images: LabelledImages) -> list[str]:
    return [f"  warning: {remark}" for remark in images.remarks]


def _lost_lines(result: ClassifierResult) -> list[str]:
    return [f"  unreadable, not evaluated: {path}: {reason}" for path, reason in result.lost]


def _unreadable(result: ClassifierResult) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in result.lost]


def _class_lines(model: Classifier, scores: Scores) -> list[str]:
    width = min(max(len("class"), *(len(name) for name in model.classes)), 30)
    lines = [f"  {'class':{width}}  images  recall  (95 % interval)  precision     F1  confused with"]
    # The worst first: they are of most interest.
    recalls = [2.0 if score.recall is None else score.recall for score in scores.classes]
    order = sorted(range(len(model.classes)), key=recalls.__getitem__)
    for label in order[:_CLASSES_SHOWN]:
        score, name = scores.classes[label], model.classes[label]
        recall, precision, f1 = (_percent(share) for share in (score.recall, score.precision, score.f1))
        interval = f"{score.interval[0]:.0%} to {score.interval[1]:.0%}" if score.interval else ""
        other = "" if score.confused_with is None else model.classes[score.confused_with]
        found = f"{score.images:>6,}  {recall:>6}  {interval:>15}  {precision:>9}  {f1:>5}"
        lines.append(f"  {name[:width]:{width}}  {found}  {other}")
    more = len(order) - _CLASSES_SHOWN
    return [*lines, *([f"  ... and {more:,} better classes (per_class.csv)"] if more > 0 else []), ""]


def _robustness_lines(robustness: Robustness | None) -> list[str]:
    if robustness is None:
        return []
    lines = ["  accuracy on corrupted images"]
    for kind, strengths in robustness.items():
        shown = ",  ".join(f"{name} {accuracy:.1%}" for name, accuracy in strengths.items())
        lines.append(f"  {kind if kind != 'none' else 'unchanged':12}{shown}")
    return [*lines, ""]


def _mistake_lines(model: Classifier, images: LabelledImages, result: ClassifierResult) -> list[str]:
    mistakes = result.scores.confident_mistakes(_MISTAKES_SHOWN)
    if not mistakes:
        return ["  no mistakes", ""]
    lines = ["  most confident mistakes"]
    for index in mistakes:
        true, answer, confidence = _mistake(model, result.scores, index)
        lines.append(f"  {confidence:6.1%} {answer}, should be {true}: {images.title(result.rows[index])}")
    return [*lines, ""]


def _mistakes_table(model: Classifier, images: LabelledImages, result: ClassifierResult) -> list[list[object]]:
    rows: list[list[object]] = [["path", "class", "predicted", "probability"]]
    for index in result.scores.confident_mistakes(_MISTAKES_KEPT):
        true, answer, confidence = _mistake(model, result.scores, index)
        rows.append([images.title(result.rows[index]), true, answer, f"{confidence:.6f}"])
    return rows


def _mistake(model: Classifier, scores: Scores, index: int) -> tuple[str, str, float]:
    """True class, predicted class and its probability."""
    answer = int(scores.predicted[index])
    true = int(scores.labels_N[index])
    return model.classes[true], model.classes[answer], float(scores.probabilities_NK[index, answer])


def _facts(
    model: Classifier, images: LabelledImages, result: ClassifierResult, robustness: Robustness | None
) -> dict[str, Any]:
    scores = result.scores
    bins = [
        {"images": count, "confidence": round(confidence, 6), "accuracy": round(accuracy, 6)}
        for count, confidence, accuracy in scores.calibration
    ]
    return {
        "model": model.origin,
        "data": images.name,
        "images": len(scores.labels_N),
        "remarks": [*images.remarks, *prediction_remarks(model, scores)],
        "nonfinite_answers": scores.num_nonfinite,
        "unreadable": _unreadable(result),
        "accuracy": round(scores.accuracy, 6),
        "accuracy_interval95": [round(bound, 6) for bound in scores.interval],
        "top5": None if scores.top5 is None else round(scores.top5, 6),
        "balanced_accuracy": round(scores.balanced_accuracy, 6),
        "majority_baseline": round(scores.majority_baseline, 6),
        "loss": None if scores.num_nonfinite else round(scores.loss, 6),
        "calibration_error": None if scores.calibration_error is None else round(scores.calibration_error, 6),
        "calibration": bins,
        "robustness": robustness,
    }


def _verdict(p_value: float, difference: float) -> str:
    if p_value >= 0.05:
        return "no significant difference on these images"
    return f"{'B' if difference > 0 else 'A'} is better"


def _name(model: Classifier, label: int) -> str:
    return "no finite answer" if label == NO_PREDICTION else model.classes[label]


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{share:.{digits}%}"
