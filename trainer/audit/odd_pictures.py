"""Finds pictures unlike the others: blurred, dark, bright, nearly empty, or of odd size or proportions. Torch-free.

Each picture is compared with those of its class: its distance from their median is divided by their median absolute
deviation, scaled as for a normal distribution. So no picture of a class of dark pictures is odd for being dark. A picture
must also pass an absolute limit, so that the darkest of a class of bright pictures is not called dark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.audit.picture_facts import PictureFacts

LEAST_SCORE = 3.5  # source: B. Iglewicz and D. Hoaglin, How to Detect and Handle Outliers, 1993
_NORMAL = 1.4826  # standard deviation over median absolute deviation, for a normal distribution


class OddPicture(NamedTuple):
    """One reason to look at a picture."""

    row: int
    kind: str
    value: str  # for people
    score: float  # distance from the median of its class


class _Kind(NamedTuple):
    name: str
    measure: Callable[[PictureFacts], NDArray[np.float64]]  # compared within the class
    is_low: bool  # whether low values are odd; else high ones
    spread: float  # least standard deviation that is assumed, since the pictures of a class may be equal in this
    is_odd: Callable[[PictureFacts], NDArray[np.bool_]]  # the absolute limit
    show: Callable[[PictureFacts, int], str]


def _long_side(facts: PictureFacts) -> NDArray[np.float64]:
    return np.log(np.maximum(np.maximum(facts.width_N, facts.height_N), 1))


def _proportions(facts: PictureFacts) -> NDArray[np.float64]:
    return np.abs(np.log(np.maximum(facts.width_N, 1) / np.maximum(facts.height_N, 1)))


def _size(facts: PictureFacts, row: int) -> str:
    return f"{facts.width_N[row]:,}x{facts.height_N[row]:,} pixels"


_KINDS = (
    _Kind(
        "blurred", lambda facts: np.log(facts.sharpness_N + 1e-6), True, 0.2, lambda facts: facts.sharpness_N < 0.02,
        lambda facts, row: f"sharpness {facts.sharpness_N[row]:.4f}",
    ),
    _Kind(
        "dark", lambda facts: facts.brightness_N, True, 5.0, lambda facts: facts.brightness_N < 50,
        lambda facts, row: f"mean brightness {facts.brightness_N[row]:.0f} of 255",
    ),
    _Kind(
        "bright", lambda facts: facts.brightness_N, False, 5.0, lambda facts: facts.brightness_N > 215,
        lambda facts, row: f"mean brightness {facts.brightness_N[row]:.0f} of 255",
    ),
    _Kind(
        "nearly empty", lambda facts: facts.contrast_N, True, 4.0, lambda facts: facts.contrast_N < 16,
        lambda facts, row: f"contrast {facts.contrast_N[row]:.1f} of 128",
    ),
    _Kind("small", _long_side, True, 0.1, lambda facts: np.maximum(facts.width_N, facts.height_N) < 200, _size),
    _Kind("odd proportions", _proportions, False, 0.1, lambda facts: _proportions(facts) > np.log(2), _size),
)  # fmt: skip


def find_odd(facts: PictureFacts, labels_N: NDArray[np.int64]) -> list[OddPicture]:
    """Odd pictures, the oddest first; a picture may appear once for each kind."""
    found = []
    for kind in _KINDS:
        values, limit = kind.measure(facts), kind.is_odd(facts)
        for label in np.unique(labels_N):
            rows = np.flatnonzero(labels_N == label)
            scores = _scores(values[rows], kind.spread) * (-1 if kind.is_low else 1)
            odd = np.flatnonzero((scores >= LEAST_SCORE) & limit[rows])
            found += [OddPicture(int(rows[i]), kind.name, kind.show(facts, rows[i]), float(scores[i])) for i in odd]
    return sorted(found, key=lambda one: -one.score)


def _scores(values: NDArray[np.float64], least_spread: float) -> NDArray[np.float64]:
    """Distances from the median in standard deviations."""
    middle = np.median(values)
    scores: NDArray[np.float64] = (values - middle) / max(
        _NORMAL * float(np.median(np.abs(values - middle))), least_spread
    )
    return scores
