"""Results of each class of a run: its newest score, its last change, and its recall at earlier evaluations. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.host.safe_text import printable
from trainer.run.log.result_events import Evaluated
from trainer.run.view.class_score import ClassScore, scores_of
from trainer.run.view.run_view import RunView

Pair = tuple[float, int, str, str]  # share of the class's images, number of images, true class, predicted class


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Result of one class; `change` is that of the recall since the previous evaluation, None without one."""

    label: int
    name: str
    score: ClassScore
    change: float | None

    def predicted_as(self, other: int) -> int | None:
        """Images that were given another class; None if unknown, since the log lists only the most frequent ones."""
        counted = dict(self.score.confusions)
        complete = sum(counted.values()) == self.score.images - self.score.correct
        return counted.get(other, 0 if complete else None)


def class_results(view: RunView) -> list[ClassResult]:
    """All classes by their newest evaluation, worst first; those without images last."""
    last, before = view.last_evaluation, view.previous_evaluation
    if last is None or view.started is None:
        return []
    scores = scores_of(last)
    results = [
        ClassResult(label=label, name=printable(name), score=score, change=_change(score, label, before))
        for label, (name, score) in enumerate(zip(view.class_names(len(scores)), scores, strict=True))
    ]
    return sorted(results, key=lambda result: (result.score.recall is None, result.score.recall or 0.0))


def worst_pairs(results: list[ClassResult]) -> list[Pair]:
    """All pairs of a class and one predicted instead, worst first, by the results of all classes."""
    names = {result.label: result.name for result in results}
    pairs = [
        (count / result.score.images, count, result.name, names[other])
        for result in sorted(results, key=lambda result: result.label)
        for other, count in result.score.confusions
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], -pair[1]))


def recalls(view: RunView, label: int, most: int) -> list[float]:
    """Recall of a class at the last evaluations, oldest first."""
    measured = view.last_evaluations(most)
    return [event.correct[label] / event.counts[label] for event in measured if event.counts[label]]


def _change(score: ClassScore, label: int, before: Evaluated | None) -> float | None:
    if score.recall is None or before is None or not before.counts[label]:
        return None
    return score.recall - before.correct[label] / before.counts[label]
