"""Figures of an evaluation against their definitions: shares, intervals, calibration, McNemar's test, corruptions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.evaluation_statistics import paired_difference
from trainer.evaluation.classifier_evaluation import CORRUPTIONS, corrupt_batch
from trainer.evaluation.scores import Scores, class_scores, compare
from trainer.run.view.class_score import wilson_interval

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
