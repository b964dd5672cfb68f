"""Regenerate `trainer/data/digits.npz` from the copy of the data set that scikit-learn ships.

    pip install scikit-learn && python scripts/make_digits.py

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0. scikit-learn ships its test part: 1,797 images of 8x8 pixels, 0 to 16.
Test images are every fifth image of each class, in the order of the source, and the first training image of the first classes
until there are 360.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

NUM_TEST = 360
TARGET = Path(__file__).resolve().parent.parent / "trainer" / "data" / "digits.npz"


def test_mask(labels: np.ndarray) -> np.ndarray:
    """A fixed, stratified choice of `NUM_TEST` images."""
    mask = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        mask[np.flatnonzero(labels == label)[4::5]] = True
    by_class = [np.flatnonzero((labels == label) & ~mask) for label in range(10)]
    for label in range(NUM_TEST - int(mask.sum())):
        mask[by_class[label][0]] = True
    return mask


def main() -> None:
    """Write the file."""
    digits = load_digits()
    labels = digits.target.astype(np.uint8)
    mask = test_mask(labels)
    assert mask.sum() == NUM_TEST
    np.savez_compressed(TARGET, images=digits.images.astype(np.uint8), labels=labels, is_test=mask)


if __name__ == "__main__":
    main()
