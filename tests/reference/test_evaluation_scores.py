"""`trainer.evaluation.scores` and `trainer.run.view.class_score` compared with plain arithmetic and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference.evaluation_statistics import (
    calibration_error,
    mcnemar_p,
    paired_difference,
    plain_classes,
    rank_of,
    wilson,
)
from trainer.evaluation.scores import NO_PREDICTION, Scores, compare, confusions_of
from trainer.run.view.class_score import scores_from_counts, wilson_interval


def random_answers(images: int, classes: int, seed: int, damaged: int) -> tuple[Scores, list[int]]:
    """Softmax of random logits, with a non-finite value in the first `damaged` rows, and the answers; about 60 % are right."""
    draw = np.random.default_rng(seed)
    powers = np.exp(draw.normal(0, 2, (images, classes)))
    probabilities_NK: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    answers = [max(range(classes), key=row.__getitem__) for row in probabilities_NK]
    labels_N = np.where(draw.random(images) < 0.6, answers, draw.integers(0, classes, images))
    for row in range(min(damaged, images)):
        probabilities_NK[row, draw.integers(classes)] = [np.nan, np.inf, -np.inf][row % 3]
        answers[row] = NO_PREDICTION
    return Scores(probabilities_NK, labels_N), answers


@settings(max_examples=100, deadline=None)
@given(
    images=st.integers(1, 60), classes=st.integers(2, 13), seed=st.integers(0, 10**6), damaged=st.sampled_from([0, 0, 1, 4])
)  # fmt: skip
def test_all_scores_equal_those_of_plain_arithmetic(images: int, classes: int, seed: int, damaged: int) -> None:
    scores, answers = random_answers(images, classes, seed, damaged)
    labels = scores.labels_N.tolist()
    rows = scores.probabilities_NK.astype(np.float64).tolist()
    right = [answer == label for answer, label in zip(answers, labels, strict=True)]
    whole = [row for row in range(images) if answers[row] != NO_PREDICTION]
    assert scores.predicted.tolist() == answers
    assert scores.right.tolist() == right
    assert scores.num_nonfinite == images - len(whole)
    assert scores.accuracy == pytest.approx(sum(right) / images)
    assert scores.interval == pytest.approx(wilson(sum(right), images), abs=1e-9)
    assert scores.num_present == len(set(labels))
    assert scores.majority_baseline == pytest.approx(max(map(labels.count, labels)) / images)
    given_classes = {answers[row] for row in whole}
    assert scores.only_predicted == (min(given_classes) if len(given_classes) == 1 < len(set(labels)) else None)
    confidences = [max(rows[row]) for row in whole]
    assume(all(abs(confidence * 15 - round(confidence * 15)) > 1e-5 for confidence in confidences))
    if whole:
        wanted = calibration_error(confidences, [right[row] for row in whole])
        assert scores.calibration_error == pytest.approx(wanted, abs=1e-6)
    assert sum(count for count, _, _ in scores.calibration) == len(whole)
    if len(whole) == images:
        losses = [-math.log(row[label]) for row, label in zip(rows, labels, strict=True)]
        assert scores.loss == pytest.approx(sum(losses) / images, rel=1e-6)
    among_five = [row in whole and rank_of(rows[row], labels[row]) < 5 for row in range(images)]
    assert scores.top5 == (None if classes < 10 else pytest.approx(sum(among_five) / images))
    wrong = sorted((row for row in whole if not right[row]), key=lambda row: -max(rows[row]))
    assert scores.confident_mistakes(7) == wrong[:7]


@settings(max_examples=100, deadline=None)
@given(
    images=st.integers(1, 60), classes=st.integers(2, 13), seed=st.integers(0, 10**6), damaged=st.sampled_from([0, 0, 1, 4])
)  # fmt: skip
def test_scores_of_each_class_equal_those_of_plain_arithmetic(
    images: int, classes: int, seed: int, damaged: int
) -> None:
    scores, answers = random_answers(images, classes, seed, damaged)
    labels = scores.labels_N.tolist()
    wanted = plain_classes(labels, answers, classes)
    pairs = list(zip(labels, answers, strict=True))
    assert scores.confusion.tolist() == [[pairs.count((a, b)) for b in range(classes)] for a in range(classes)]
    for score, plain in zip(scores.classes, wanted, strict=True):
        assert (score.images, score.correct, score.predicted) == (plain.images, plain.correct, plain.predicted)
        shares = ((score.recall, plain.recall), (score.precision, plain.precision), (score.f1, plain.f1))
        for share, wanted_share in shares:
            assert share == (None if wanted_share is None else pytest.approx(wanted_share))
        assert score.interval == (
            None if not plain.images else pytest.approx(wilson(plain.correct, plain.images), abs=1e-9)
        )
        assert list(score.confusions) == plain.confusions
        assert score.confused_with == (plain.confusions[0][0] if plain.confusions else None)
    recalls = [plain.recall for plain in wanted if plain.recall is not None]
    assert scores.balanced_accuracy == pytest.approx(sum(recalls) / len(recalls))
    shortened = confusions_of(scores.confusion, most=2)
    assert shortened == [[number for pair in plain.confusions[:2] for number in pair] for plain in wanted]


@given(trials=st.integers(1, 3000), share=st.floats(0, 1))
def test_intervals_equal_wilsons_by_bisection(trials: int, share: float) -> None:
    successes = round(share * trials)
    assert wilson_interval(successes, trials) == pytest.approx(wilson(successes, trials), abs=1e-9)


def answered(both: int, only_first: int, only_second: int, neither: int) -> tuple[Scores, Scores]:
    """Two models of which both, one or none recognise these numbers of images, all of class 0."""
    counts = (both, only_first, only_second, neither)
    right = np.repeat([[True, True], [True, False], [False, True], [False, False]], counts, axis=0)
    first, second = (
        Scores(np.where(column[:, None], [0.8, 0.2], [0.3, 0.7]).astype(np.float32), np.zeros(len(column), np.int64))
        for column in right.T
    )
    return first, second


def test_the_interval_of_a_paired_difference_equals_the_published_one() -> None:
    """Agresti, Categorical Data Analysis, section on matched pairs: approval of a prime minister in two surveys.

    794 approve twice, 150 only at first, 86 only later, 570 never: difference -0.04, standard error 0.0095.
    """
    result = compare(*answered(794, 150, 86, 570))
    assert result.difference == pytest.approx(-0.04)
    assert (result.interval[1] - result.interval[0]) / 2 / 1.959964 == pytest.approx(0.0095, abs=5e-5)
    assert result.interval == pytest.approx((-0.0587, -0.0213), abs=5e-5)
    assert result.p_value == pytest.approx(mcnemar_p(150, 86), rel=1e-12)
    assert result.p_value < 0.0001


@settings(max_examples=100, deadline=None)
@given(counts=st.tuples(*[st.integers(0, 40)] * 4).filter(lambda counts: sum(counts) > 0))
def test_a_comparison_equals_that_of_the_differences_by_image(counts: tuple[int, int, int, int]) -> None:
    first, second = answered(*counts)
    result = compare(first, second)
    assert (result.only_first, result.only_second) == counts[1:3]
    assert result.p_value == pytest.approx(mcnemar_p(*counts[1:3]), rel=1e-12)
    difference, interval = paired_difference(first.right.tolist(), second.right.tolist())
    assert result.difference == pytest.approx(difference, abs=1e-12)
    assert result.interval == pytest.approx(interval, abs=1e-9)
    swapped = compare(second, first)
    assert swapped.p_value == result.p_value
    assert swapped.interval == pytest.approx((-result.interval[1], -result.interval[0]), abs=1e-12)


@pytest.mark.parametrize("classes", [9, 10])
def test_top5_is_reported_from_ten_classes_on(classes: int) -> None:
    scores, _ = random_answers(20, classes, 1, 0)
    assert (scores.top5 is None) == (classes == 9)


def test_counts_of_a_log_without_answers_have_no_precision() -> None:
    first, second = scores_from_counts([4, 0], [3, 0], [], [])
    assert (first.recall, first.precision, first.f1, first.confusions) == (0.75, None, None, ())
    assert (second.recall, second.interval) == (None, None)
