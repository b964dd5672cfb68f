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

    probabilities_NK: NDArray[np.float64]  # out of fold
    labels_N: NDArray[np.int64]
    doubtful_N: NDArray[np.bool_]
    joint_KK: NDArray[np.float64]  # estimated number of pictures by label (rows) and true class (columns)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of each picture's own label: (N,)."""
        return self.probabilities_NK[np.arange(len(self.labels_N)), self.labels_N]

    @property
    def suggested(self) -> NDArray[np.int64]:
        """The most probable class of each picture other than its label: (N,)."""
        others = self.probabilities_NK.copy()
        others[np.arange(len(self.labels_N)), self.labels_N] = -1.0
        suggested: NDArray[np.int64] = others.argmax(1)
        return suggested

    @property
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
    doubtful_N, joint_KK = confident_joint(probabilities_NK, labels_N)
    return LabelDoubts(probabilities_NK=probabilities_NK, labels_N=labels_N, doubtful_N=doubtful_N, joint_KK=joint_KK)


def folds_of(labels_N: NDArray[np.int64], groups: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """A fold for each picture, so that each class is spread evenly and no group is divided; always the same."""
    order = np.random.default_rng(0).permutation(len(labels_N))
    order = order[np.argsort(labels_N[order], kind="stable")]
    folds_N = np.empty(len(labels_N), np.int64)
    folds_N[order] = np.arange(len(labels_N)) % FOLDS
    for group in groups:
        folds_N[list(group)] = folds_N[group[0]]
    return folds_N


def out_of_fold_probabilities(
    features_NF: Tensor, labels_N: NDArray[np.int64], folds_N: NDArray[np.int64], progress: Progress
) -> NDArray[np.float64]:
    """Probabilities (N, K) of each picture from a classifier that was fitted to the other folds."""
    features_NF = standardised(features_NF)
    labels, folds, num_classes = torch.from_numpy(labels_N), torch.from_numpy(folds_N), int(labels_N.max()) + 1
    found_NK = torch.zeros(len(labels), num_classes, dtype=torch.float64)
    decay = 0.0
    for fold in range(FOLDS):
        progress("checking labels", fold / FOLDS)
        held_out, rest = folds == fold, folds != fold
        if not fold:
            decay = min(_DECAYS, key=lambda decay: _held_out_loss(features_NF, labels, held_out, num_classes, decay))
        weights = fit(features_NF[rest], labels[rest], num_classes, decay)
        found_NK[held_out] = logits_of(features_NF[held_out], weights).double().softmax(1)
    progress("checking labels", 1.0)
    return found_NK.numpy()


def standardised(features_NF: Tensor) -> Tensor:
    """Features in fp32 with mean 0 and a squared norm of 1 on average, so that a penalty's strength does not depend on F."""
    features_NF = features_NF.float()
    spread_F = features_NF.std(0)
    features_NF = (features_NF - features_NF.mean(0)) / torch.where(spread_F > 1e-6, spread_F, 1.0)
    return features_NF / math.sqrt(features_NF.shape[1])


def confident_joint(
    probabilities_NK: NDArray[np.float64], labels_N: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which pictures count as another class than their label, and the estimated numbers by label and true class.

    The threshold of a class is the mean probability that pictures with its label have of it. A picture counts as the
    most probable of the classes whose threshold it reaches; those that reach none do not count.
    """
    num_classes = probabilities_NK.shape[1]
    own_NK = labels_N[:, None] == np.arange(num_classes)
    counts_K = own_NK.sum(0)
    thresholds_K = np.where(counts_K, (probabilities_NK * own_NK).sum(0) / np.maximum(counts_K, 1), np.inf)
    reached_NK = np.where(probabilities_NK >= thresholds_K, probabilities_NK, -1.0)
    counted_N, true_N = reached_NK.max(1) >= 0, reached_NK.argmax(1)
    joint_KK = np.zeros((num_classes, num_classes))
    np.add.at(joint_KK, (labels_N[counted_N], true_N[counted_N]), 1.0)
    # Each label has as many pictures as it has; a label none of whose pictures count is taken to be right.
    empty_K = joint_KK.sum(1) == 0
    joint_KK[empty_K, empty_K] = 1.0
    joint_KK *= (counts_K / joint_KK.sum(1))[:, None]
    return counted_N & (true_N != labels_N), joint_KK


def _held_out_loss(features_NF: Tensor, labels_N: Tensor, held_out_N: Tensor, num_classes: int, decay: float) -> float:
    weights = fit(features_NF[~held_out_N], labels_N[~held_out_N], num_classes, decay)
    return float(functional.cross_entropy(logits_of(features_NF[held_out_N], weights), labels_N[held_out_N]))


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
