"""Rules about classes: swapped labels, a class that is not learnt, a best checkpoint selected on test images."""

from __future__ import annotations

from trainer.run.diagnosis.finding import Verdict
from trainer.run.log.result_events import Evaluated
from trainer.run.view.class_score import ClassScore, scores_of, wilson_interval
from trainer.run.view.run_view import RunView

_LEARNT = 0.5  # accuracy from which one class can lag behind, and that two swapped classes would reach if exchanged
_NOT_LEARNT = 0.05  # largest recall of a class that is not learnt, at three evaluations in a row
_EARLY = 1 / 3  # share of the run before which a class may still be learnt
_CHOICES = 10  # evaluations from which the best of them is biased by the selection
_LEAST_IMAGES = 20  # of a class, for a verdict


def labels_swapped(view: RunView) -> Verdict | None:
    """Two classes with most of their images confused with each other, while the rest is learnt."""
    measured = view.last_evaluations(2)
    if len(measured) < 2 or view.started is None or not measured[-1].confusions:
        return None
    last, scores = measured[-1], scores_of(measured[-1])
    for label, score in enumerate(scores):
        other = score.confused_with
        if other is None or other < label or not _most_are(score, other) or not _most_are(scores[other], label):
            continue
        there, back = dict(score.confusions)[other], dict(scores[other].confusions)[label]
        exchanged = sum(last.correct) - score.correct - scores[other].correct + there + back
        if exchanged < _LEARNT * sum(last.counts) or not _few_are_right(measured[0], label, other):
            continue
        names = view.class_names(len(scores))
        return Verdict(
            kind="labels swapped", level="warning", text=f"{names[label]} and {names[other]} look swapped",
            evidence=f"{there / score.images:.0%} and {back / scores[other].images:.0%} are predicted as the other",
            remedy=f"compare their folders in train and {last.split}",
        )  # fmt: skip
    return None


def class_not_learnt(view: RunView) -> Verdict | None:
    """A class with hardly any image recognised after a third of the run, when the others are learnt."""
    measured = [event for event in view.regular_evaluations[-3:] if event.step >= _EARLY * view.total_steps]
    if len(measured) < 3 or view.started is None:
        return None
    last, scores = measured[-1], scores_of(measured[-1])
    lagging = [label for label, score in enumerate(scores) if all(_lags(event, label) for event in measured)]
    others = [score.recall for label, score in enumerate(scores) if label not in lagging and score.recall is not None]
    if not lagging or not others or sum(others) / len(others) < _LEARNT:
        return None
    classes = view.class_names(len(scores))
    names = ", ".join(classes[label] for label in lagging[:3]) + (", ..." if len(lagging) > 3 else "")
    first = lagging[0]
    return Verdict(
        kind="class not learnt", level="warning", text=f"not learnt: {names}",
        evidence=f"{last.correct[first]} of {last.counts[first]:,} recognised, in three evaluations",
        remedy="6 shows the confusions; data.balance weights rare classes",
    )  # fmt: skip


def selected_on_test(view: RunView) -> Verdict | None:
    """A best checkpoint that was selected on the test images, which biases its accuracy."""
    choices = sum(event.split == "test" for event in view.evaluations)
    if view.selection_split != "test" or choices < _CHOICES:
        return None
    return Verdict(
        kind="chosen on test", level="info", text="the test images select the best checkpoint: accuracy inflated",
        evidence=f"best of {choices} evaluations", remedy="start the next run with data.val_fraction=0.1",
    )  # fmt: skip


def _most_are(score: ClassScore, other: int) -> bool:
    """Whether more than half of a class is predicted as another one, beyond chance."""
    taken = dict(score.confusions).get(other, 0)
    return score.images >= _LEAST_IMAGES and wilson_interval(taken, score.images)[0] > 0.5


def _few_are_right(event: Evaluated, *labels: int) -> bool:
    return all(event.correct[label] < 0.5 * event.counts[label] for label in labels)


def _lags(event: Evaluated, label: int) -> bool:
    return event.counts[label] >= _LEAST_IMAGES and event.correct[label] <= _NOT_LEARNT * event.counts[label]
