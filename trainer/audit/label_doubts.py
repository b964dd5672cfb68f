"""Finds labels that are probably wrong, from each picture's features and the labels of the others.

Each picture is classified by a logistic regression that was fitted without it (out of fold). A picture is doubtful when
another class is as probable for it as for the pictures that carry its label: confident learning. Source: C. G. Northcutt,
L. Jiang and I. L. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, arXiv:1911.00068, section 3.

Shapes: N pictures, F features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.host.progress import Progress

FOLDS = 5
_DECAYS = (1e-1, 1e-2, 1e-3, 1e-4)  # strengths of the penalty on squared weights; the first fold chooses
_ITERATIONS = 60


@dataclass(frozen=True, kw_only=True)
class LabelDoubts:
    """Doubts about the labels of N pictures."""

    probabilities_NK: NDArray[np.float32]  # out of fold
    labels_N: NDArray[np.int64]
    doubtful_N: NDArray[np.bool_]
    suggested_N: NDArray[
        np.int64
    ]  # of a doubtful picture the class that it counts as; else the most probable other class
    joint_KK: NDArray[np.float64]  # estimated number of pictures by label (rows) and true class (columns)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """Probability of each picture's own label: (N,)."""
        return _own(self.probabilities_NK, self.labels_N)

    @cached_property
    def ranking(self) -> NDArray[np.int64]:
        """All pictures, the most doubtful labels first: (N,). Doubtful ones come before the others, the less confident first."""
        return np.lexsort((self.confidence, ~self.doubtful_N))

    @property
    def estimated_wrong(self) -> float:
        """Estimated number of wrong labels."""
        return float(self.joint_KK.sum() - self.joint_KK.trace())


def find_doubts(
    features_NF: Tensor, labels_N: NDArray[np.int64], groups: Sequence[Sequence[int]], progress: Progress
) -> LabelDoubts:
    """Doubts about labels; each group holds near copies, which stay in one fold, or they would vouch for each other."""
    probabilities_NK = out_of_fold_probabilities(features_NF, labels_N, folds_of(labels_N, groups), progress)
    counted_N, joint_KK = confident_joint(probabilities_NK, labels_N)
    best_N = probabilities_NK.argmax(1)
    # A picture whose own label is still the most probable one may count as a rare class, whose threshold is low.
    doubtful_N = (counted_N >= 0) & (counted_N != labels_N) & (best_N != labels_N)
    others_NK = probabilities_NK.copy()
    others_NK[np.arange(len(labels_N)), labels_N] = -1.0
    return LabelDoubts(
        probabilities_NK=probabilities_NK, labels_N=labels_N, doubtful_N=doubtful_N,
        suggested_N=np.where(doubtful_N, counted_N, others_NK.argmax(1)), joint_KK=joint_KK,
    )  # fmt: skip


def folds_of(labels_N: NDArray[np.int64], groups: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """A fold for each picture, with each class spread evenly; always the same.

    A group is in one fold, unless it holds more of a class than a fold does: its class would be missing in the others.
    """
    order = np.random.default_rng(0).permutation(len(labels_N))
    order = order[np.argsort(labels_N[order], kind="stable")]
    folds_N = np.empty(len(labels_N), np.int64)
    folds_N[order] = np.arange(len(labels_N)) % FOLDS
    counts_K = np.bincount(labels_N)
    for group in map(list, groups):
        if (np.bincount(labels_N[group], minlength=len(counts_K)) * FOLDS <= counts_K).all():
            folds_N[group] = folds_N[group[0]]
    return folds_N


def out_of_fold_probabilities(
    features_NF: Tensor, labels_N: NDArray[np.int64], folds_N: NDArray[np.int64], progress: Progress
) -> NDArray[np.float32]:
    """Probabilities (N, K) of each picture from a classifier that was fitted to the other folds."""
    features_NF, labels, folds = standardised(features_NF), torch.from_numpy(labels_N), torch.from_numpy(folds_N)
    num_classes, fits = int(labels_N.max()) + 1, len(_DECAYS) + FOLDS - 1
    found_NK = torch.zeros(len(labels), num_classes)

    def fitted(fold: int, decay: float, done: int) -> Tensor:
        """Logits of a fold's pictures."""
        progress("checking labels", done / fits)
        held_out = folds == fold
        weights = fit(features_NF[~held_out], labels[~held_out], num_classes, decay)
        return logits_of(features_NF[held_out], weights)

    # The first fold chooses how strong the penalty is.
    tried = {decay: fitted(0, decay, done) for done, decay in enumerate(_DECAYS)}
    best = min(tried, key=lambda decay: float(functional.cross_entropy(tried[decay], labels[folds == 0])))
    for fold in range(FOLDS):
        logits = fitted(fold, best, len(_DECAYS) + fold - 1) if fold else tried[best]
        found_NK[folds == fold] = logits.softmax(1)
    progress("checking labels", 1.0)
    return found_NK.numpy()


def standardised(features_NF: Tensor) -> Tensor:
    """Features in fp32 with mean 0 and a squared norm of 1 on average, so that a penalty's strength does not depend on F."""
    features_NF = features_NF.float()
    spread_F = features_NF.std(0)
    features_NF = (features_NF - features_NF.mean(0)) / torch.where(spread_F > 1e-6, spread_F, 1.0)
    return features_NF / math.sqrt(features_NF.shape[1])


def confident_joint(
    probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The class that each picture counts as, or -1: (N,); and the estimated numbers by label and true class (K, K).

    The threshold of a class is the mean probability that pictures with its label have of it. A picture counts as the
    most probable of the classes whose threshold it reaches; those that reach none do not count.
    """
    num_classes = probabilities_NK.shape[1]
    counts_K = np.bincount(labels_N, minlength=num_classes)
    sums_K = np.bincount(labels_N, weights=_own(probabilities_NK, labels_N), minlength=num_classes)
    thresholds_K = np.where(counts_K, sums_K / np.maximum(counts_K, 1), np.inf)
    reached_NK = np.where(probabilities_NK >= thresholds_K, probabilities_NK, np.float32(-1.0))
    counted_N = np.where(reached_NK.max(1) >= 0, reached_NK.argmax(1), -1)
    joint_KK = np.zeros((num_classes, num_classes))
    np.add.at(joint_KK, (labels_N[counted_N >= 0], counted_N[counted_N >= 0]), 1.0)
    # Each label has as many pictures as it has; a label none of whose pictures count is taken to be right.
    empty_K = joint_KK.sum(1) == 0
    joint_KK[empty_K, empty_K] = 1.0
    joint_KK *= (counts_K / joint_KK.sum(1))[:, None]
    return counted_N, joint_KK


def _own(probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float32]:
    own_N: NDArray[np.float32] = probabilities_NK[np.arange(len(labels_N)), labels_N]
    return own_N


def logits_of(features_NF: Tensor, weights_GK: Tensor) -> Tensor:
    """Logits (N, K) of the classifier that `fit` returns."""
    return torch.addmm(weights_GK[-1], features_NF, weights_GK[:-1])


def fit(features_NF: Tensor, labels_N: Tensor, num_classes: int, decay: float) -> Tensor:
    """Logistic regression: weights and, in the last row, biases (F + 1, K)."""
    weights_GK = torch.zeros(features_NF.shape[1] + 1, num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights_GK], max_iter=_ITERATIONS, history_size=10, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(logits_of(features_NF, weights_GK), labels_N)
        value = value + decay * weights_GK[:-1].square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    return weights_GK.detach()
