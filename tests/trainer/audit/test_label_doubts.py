"""Doubts about labels: the paper's counts by hand, the classifier against its own equations, and planted wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.progress import quiet
from trainer.audit import label_doubts
from trainer.audit.label_doubts import FOLDS, confident_joint, find_doubts, folds_of, out_of_fold_probabilities

CLEANLAB = [[113, 2, 0, 0], [0, 102, 3, 5], [3, 0, 128, 2], [3, 3, 4, 132]]


def test_the_joint_is_that_of_the_paper() -> None:
    """Thresholds are the means 0.7 and 0.6: the third picture counts as the second class, the fifth as none."""
    first_class = [0.9, 0.9, 0.3, 0.4, 0.45, 0.35]
    probabilities = np.array([[share, 1 - share] for share in first_class])
    counted, joint = confident_joint(probabilities, np.array([0, 0, 0, 1, 1, 1]))
    assert counted.tolist() == [0, 0, 1, 1, -1, 1]
    assert joint.tolist() == [[2.0, 1.0], [0.0, 3.0]]


def test_a_picture_counts_as_the_most_probable_class_it_reaches() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25], [0.2, 0.3, 0.5], [0.2, 0.2, 0.6], [0.1, 0.5, 0.4], [0.35, 0.4, 0.25]])
    counted, joint = confident_joint(probabilities, np.array([0, 0, 2, 1, 1]))
    # Thresholds 0.3, 0.45 and 0.6. The second picture's best class does not reach its own.
    assert counted.tolist() == [0, -1, 2, 1, 0]
    assert joint.tolist() == [[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_the_counts_equal_cleanlabs() -> None:
    """The rows are those of cleanlab 2.9.0's `compute_confident_joint`, which rounds to whole numbers."""
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, 4, 500)
    logits = drawn.normal(0, 1, (500, 4)) + 2 * (np.arange(4) == labels[:, None])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    _, joint = confident_joint(probabilities, labels)
    assert np.abs(joint - np.array(CLEANLAB)).max() <= 1.0


def test_a_label_that_is_still_the_most_probable_is_not_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare class has a low threshold, which pictures of others reach."""
    probabilities = np.array([[0.7, 0.3], [0.95, 0.05], [0.95, 0.05], [0.9, 0.1], [0.45, 0.55]], np.float32)
    monkeypatch.setattr(label_doubts, "out_of_fold_probabilities", lambda *_: probabilities)
    labels = np.array([0, 0, 0, 1, 0])
    doubts = find_doubts(torch.zeros(5, 1), labels, [], quiet)
    assert confident_joint(probabilities, labels)[0].tolist() == [1, 0, 0, 0, 1]
    assert doubts.doubtful_N.tolist() == [False, False, False, True, True]
    assert doubts.suggested_N.tolist() == [1, 1, 1, 0, 1]
    assert doubts.ranking[:2].tolist() == [3, 4]


def test_the_classifier_is_at_the_minimum_of_its_loss() -> None:
    drawn = torch.Generator().manual_seed(0)
    features = torch.randn(200, 6, generator=drawn)
    labels = (features[:, 0] + 0.5 * torch.randn(200, generator=drawn) > 0).long() + (features[:, 1] > 1).long()
    weights = label_doubts.fit(features, labels, 3, 0.01).double()
    logits = features.double() @ weights[:-1] + weights[-1]
    error = logits.softmax(1) - torch.eye(3, dtype=torch.float64)[labels]
    gradient = features.double().t() @ error / 200 + 0.01 * 2 * weights[:-1] / 18
    assert gradient.norm() < 1e-4
    assert error.mean(0).norm() < 1e-4


def blobs(wrong: int, classes: int = 4, each: int = 100) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Features of overlapping classes, labels of which some are wrong, and the numbers of these."""
    drawn = np.random.default_rng(0)
    true = np.repeat(np.arange(classes), each)
    features = drawn.normal(0, 1, (len(true), 20)) + 2.5 * drawn.normal(0, 1, (classes, 20))[true]
    changed = drawn.choice(len(true), wrong, replace=False)
    labels = true.copy()
    labels[changed] = (true[changed] + drawn.integers(1, classes, wrong)) % classes
    return torch.from_numpy(features), labels, changed


def test_planted_wrong_labels_lead_the_ranking() -> None:
    features, labels, changed = blobs(40)
    doubts = find_doubts(features, labels, [], quiet)
    assert len({*doubts.ranking[:40].tolist()} & {*changed.tolist()}) >= 36
    assert doubts.estimated_wrong == pytest.approx(40, abs=8)
    true = np.repeat(np.arange(4), 100)
    found = [row for row in changed.tolist() if doubts.doubtful_N[row]]
    assert np.mean(doubts.suggested_N[found] == true[found]) > 0.9


def test_right_labels_are_hardly_doubted() -> None:
    features, labels, _ = blobs(0)
    assert find_doubts(features, labels, [], quiet).doubtful_N.sum() <= 4


def test_no_picture_is_judged_by_a_classifier_that_has_seen_it() -> None:
    """Random labels of distinct features can be learned by heart, but not predicted."""
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, 2, 300)
    features = torch.from_numpy(drawn.normal(0, 1, (300, 400)))
    probabilities = out_of_fold_probabilities(features, labels, folds_of(labels, []), quiet)
    assert 0.4 < np.mean(probabilities.argmax(1) == labels) < 0.6
    assert probabilities.sum(1) == pytest.approx(np.ones(300), abs=1e-5)


def test_folds_are_even_within_each_class_and_divide_no_group() -> None:
    labels = np.array([0] * 50 + [1] * 25 + [2] * 10)
    folds = folds_of(labels, [])
    for label, each in ((0, 10), (1, 5), (2, 2)):
        assert np.bincount(folds[labels == label], minlength=FOLDS).tolist() == [each] * FOLDS
    groups = [[0, 60, 80], [1, 2]]
    grouped = folds_of(labels, groups)
    assert all(len({*grouped[group].tolist()}) == 1 for group in groups)
    rest = np.setdiff1d(np.arange(85), [0, 60, 80, 1, 2])
    assert np.array_equal(grouped[rest], folds[rest])


def test_a_large_group_is_divided_so_that_every_fold_sees_its_class() -> None:
    labels = np.array([0] * 50 + [1] * 6)
    for group in (list(range(50, 56)), list(range(56))):
        folds = folds_of(labels, [group])
        assert all({*labels[folds != fold].tolist()} == {0, 1} for fold in range(FOLDS))
        assert {*folds.tolist()} == set(range(FOLDS))
