"""Finds pictures that show the same: resized, compressed again, cropped a little or mirrored. Torch-free.

Pairs with similar hashes are candidates. Each is checked on the thumbnails: they must agree after the shift and scale of
one of them that fits best.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.audit.picture_facts import HASH_BITS, THUMBNAIL, PictureFacts, hash_thumbnails, mirrored
from trainer.host.limits import usable_cpus
from trainer.host.progress import Progress

RADIUS = 16  # most bits in which the hashes of a pair differ
MIN_CORRELATION = 0.985  # of the thumbnails of a pair, after the best crop
_MIN_COARSE_CORRELATION = 0.7  # of the pictures as _COARSE x _COARSE pixels
_COARSE = 6
_MAX_CHROMA_DISTANCE = 12.0  # of the mean differences of red and blue from green: thumbnails are grey
_MIN_CONTRAST = 4.0  # grey values: the hash of an emptier picture is noise
_BLOCK = 512  # pictures compared with as many others at a time
_CHECKED = 4096  # candidates checked at a time
_Crop = tuple[float, float, float]
"""Share of the side that remains, and the shares of what was cropped that lie above and to the left of it."""


def _crops(sides: tuple[float, ...], places: tuple[float, ...]) -> tuple[_Crop, ...]:
    return tuple((share, top, left) for share in sides for top, left in itertools.product(places, repeat=2))


_WHOLE: _Crop = (1.0, 0.0, 0.0)
_CENTRE: _Crop = (0.95, 0.5, 0.5)
_STAGES = (
    (2, (_WHOLE, *_crops((0.95, 0.9), (0.0, 0.5, 1.0))), 0.93),
    (1, (_WHOLE, *_crops((0.975, 0.95, 0.925, 0.9), (0.0, 0.25, 0.5, 0.75, 1.0))), MIN_CORRELATION),
)
"""How candidates are checked: the thumbnails' reduction, their crops, the least correlation. The first rules most out quickly."""


class Pair(NamedTuple):
    """Two pictures that show the same."""

    first: int  # row; the smaller one
    second: int
    correlation: float  # of their thumbnails, up to 1
    is_mirrored: bool


def find_pairs(facts: PictureFacts, progress: Progress) -> list[Pair]:
    """Pairs of near copies, exact copies included, in the order of their rows.

    Not every pair of a set: a picture that is already connected with another one is not compared with it again, so that
    a thousand copies of one picture are a thousand pairs and not half a million.
    """
    usable = np.flatnonzero(facts.contrast_N >= _MIN_CONTRAST)
    sets = _Sets()
    found: list[Pair] = []
    for first, second in _equal_thumbnails(facts, usable):
        sets.join(first, second)
        found.append(Pair(first, second, 1.0, False))
    usable = np.array([row for row in usable.tolist() if sets.leader(row) == row], np.int64)
    if not len(usable):
        return found
    thumbnails = facts.thumbnails_NYX[usable]
    whole = _Searched(facts.hashes_NB[usable], _in_blocks(thumbnails, lambda x: _reduced(x, THUMBNAIL // _COARSE)))
    centres = _in_blocks(thumbnails, lambda x: hash_thumbnails(_crop(x, *_CENTRE)))
    queries = list(itertools.product((whole.hashes_NB, centres), (False, True)))
    for number, (hashes, is_mirrored) in enumerate(queries):
        query = (
            _Searched(mirrored(hashes), whole.coarse_NYX[:, :, ::-1])
            if is_mirrored
            else _Searched(hashes, whole.coarse_NYX)
        )
        for done, candidates in _candidates(query, whole, symmetric=hashes is whole.hashes_NB):
            progress("comparing pictures", (number + done) / len(queries))
            rows_M2 = usable[candidates]
            new = [sets.leader(one) != sets.leader(other) for one, other in rows_M2.tolist()]
            distances = np.abs(facts.chroma_N2[rows_M2[:, 0]] - facts.chroma_N2[rows_M2[:, 1]]).max(1, initial=0.0)
            kept = candidates[np.array(new, bool) & (distances <= _MAX_CHROMA_DISTANCE)]
            for first, second, correlation in _checked(thumbnails, kept, is_mirrored):
                low, high = sorted((int(usable[first]), int(usable[second])))
                if sets.join(low, high):
                    found.append(Pair(low, high, correlation, is_mirrored))
    return sorted(found)


def connected(pairs: list[Pair]) -> list[list[int]]:
    """Sets of pictures that are connected by pairs, each sorted, in the order of their first picture."""
    sets = _Sets()
    for first, second, *_ in pairs:
        sets.join(first, second)
    members: dict[int, list[int]] = {}
    for row in sorted({row for pair in pairs for row in pair[:2]}):
        members.setdefault(sets.leader(row), []).append(row)
    return list(members.values())


class _Sets:
    """Sets of connected pictures; each is known by its smallest row."""

    def __init__(self) -> None:
        self._leaders: dict[int, int] = {}

    def leader(self, row: int) -> int:
        while (above := self._leaders.get(row, row)) != row:
            self._leaders[row] = self._leaders.get(above, above)
            row = above
        return row

    def join(self, first: int, second: int) -> bool:
        """Connect two pictures; False where they already are."""
        low, high = sorted((self.leader(first), self.leader(second)))
        if low == high:
            return False
        self._leaders[high] = low
        return True


def _equal_thumbnails(facts: PictureFacts, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pictures whose thumbnails and colours are equal, each with the first such one."""
    seen: dict[bytes, int] = {}
    for row in rows.tolist():
        first = seen.setdefault(facts.thumbnails_NYX[row].tobytes() + facts.chroma_N2[row].tobytes(), row)
        if first != row:
            yield first, row


def _in_blocks(
    thumbnails_NYX: NDArray[np.uint8], change: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> NDArray[Any]:
    """What is computed of at least one thumbnail in fp32, a block at a time: all of them in fp32 would take much memory."""
    starts = range(0, len(thumbnails_NYX), _BLOCK)
    return np.concatenate([change(thumbnails_NYX[start : start + _BLOCK].astype(np.float32)) for start in starts])


class _Searched(NamedTuple):
    """What candidates are found by."""

    hashes_NB: NDArray[np.int8]
    coarse_NYX: NDArray[np.float32]


def _candidates(query: _Searched, others: _Searched, *, symmetric: bool) -> Iterator[tuple[float, NDArray[np.int64]]]:
    """Pairs (row of the query, another row) that are alike at first sight, with the share done.

    Where it does not matter which of two pictures is the query, half of the comparisons are enough.
    """
    hashes, other_hashes = query.hashes_NB.astype(np.float32), others.hashes_NB.astype(np.float32)
    starts, least = range(0, len(hashes), _BLOCK), HASH_BITS - 2 * RADIUS

    def of_rows(start: int) -> list[NDArray[np.int64]]:
        found = []
        for other in starts[start // _BLOCK if symmetric else 0 :]:
            # Equal bits less the others.
            near = np.argwhere(hashes[start : start + _BLOCK] @ other_hashes[other : other + _BLOCK].T >= least)
            near += np.array([start, other])
            near = near[near[:, 0] < near[:, 1]] if symmetric else near[near[:, 0] != near[:, 1]]
            for rows in np.split(near, range(_CHECKED, len(near), _CHECKED)):
                coarse = _correlation(query.coarse_NYX[rows[:, 0]], others.coarse_NYX[rows[:, 1]])
                found.append(rows[coarse >= _MIN_COARSE_CORRELATION])
        return found

    with ThreadPoolExecutor(usable_cpus()) as pool:
        for done, found in enumerate(pool.map(of_rows, starts), 1):
            rows = np.concatenate([np.empty((0, 2), np.int64), *found])
            rows = np.concatenate([rows, rows[:, ::-1]]) if symmetric else rows
            for some in np.split(rows, range(_CHECKED, len(rows), _CHECKED)):
                yield done / len(starts), some


def _checked(
    thumbnails_NYX: NDArray[np.uint8], candidates: NDArray[np.int64], is_mirrored: bool
) -> Iterator[tuple[int, int, float]]:
    """Those candidates whose thumbnails agree; the first of each, or its mirror image, is cropped to fit the second."""
    similar = np.zeros(len(candidates), np.float32)
    for times, crops, least in _STAGES:
        one, other = (thumbnails_NYX[candidates[:, side]].astype(np.float32) for side in (0, 1))
        one = one[:, :, ::-1] if is_mirrored else one
        similar = _best_correlation(_reduced(one, times), _reduced(other, times), crops)
        kept = similar >= least
        candidates, similar = candidates[kept], similar[kept]
    for (first, second), value in zip(candidates.tolist(), similar.tolist(), strict=True):
        yield first, second, round(value, 4)


def _best_correlation(
    cropped_NYX: NDArray[np.float32], whole_NYX: NDArray[np.float32], crops: tuple[_Crop, ...]
) -> NDArray[np.float32]:
    """Largest correlation of each two images over all crops of the first; both are blurred, since crops do not fit exactly."""
    best = np.full(len(whole_NYX), -1.0, np.float32)
    whole_NYX = _reduced(whole_NYX, 2)
    for crop in crops:
        best = np.maximum(best, _correlation(_reduced(_crop(cropped_NYX, *crop), 2), whole_NYX))
    return best


def _crop(images_NYX: NDArray[np.float32], share: float, top: float, left: float) -> NDArray[np.float32]:
    """A crop of each image with `share` of its side, at its old size again, by linear interpolation."""
    rows, columns = (_interpolation(images_NYX.shape[1], share, place) for place in (top, left))
    cropped: NDArray[np.float32] = rows @ images_NYX @ columns.T
    return cropped


@functools.cache
def _interpolation(side: int, share: float, place: float) -> NDArray[np.float32]:
    """Matrix from the pixels of an axis to those of its crop, enlarged: (side, side)."""
    centres = (np.arange(side) + 0.5) * share + side * (1 - share) * place - 0.5
    distances = np.abs(centres.clip(0, side - 1)[:, None] - np.arange(side)[None, :])
    matrix: NDArray[np.float32] = np.maximum(1 - distances, 0).astype(np.float32)
    return matrix


def _reduced(images_NYX: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Images that are smaller so many times; each pixel is the mean of those it replaces."""
    side = images_NYX.shape[1] // times
    reduced: NDArray[np.float32] = images_NYX.reshape(-1, side, times, side, times).mean((2, 4))
    return reduced


def _correlation(first_NYX: NDArray[np.float32], second_NYX: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlation coefficient of the pixels of each two pictures."""
    first, second = (x.reshape(len(x), x.shape[1] * x.shape[2]) for x in (first_NYX, second_NYX))
    first, second = (x - x.mean(1, keepdims=True) for x in (first, second))
    size = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    result: NDArray[np.float32] = (first * second).sum(1) / np.maximum(size, 1e-9)
    return result
