"""The embedded data set: optical recognition of handwritten digits, 1,797 images in ten classes.

Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0;
the test part, as scikit-learn ships it. `scripts/make_digits.py` regenerates the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.data.dataset import DataSet, ResidentSplit, fingerprint_of, hash_tensors

_FILE = Path(__file__).with_name("digits.npz")


def load_digits(image_size: int) -> DataSet:
    """Load the digits, enlarged bilinearly from 8x8 to `image_size` pixels, grey in all three channels."""
    with np.load(_FILE, allow_pickle=False) as arrays:
        images, labels, is_test = (torch.from_numpy(arrays[name]) for name in ("images", "labels", "is_test"))
    labels = labels.long()
    pixels = _enlarge(images, image_size)
    identity = {"kind": "digits", "pixels": hash_tensors(images, labels), "split": hash_tensors(is_test)}
    return DataSet(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        splits={
            "train": ResidentSplit(pixels[~is_test], labels[~is_test]),
            "test": ResidentSplit(pixels[is_test], labels[is_test]),
        },
        fingerprint=fingerprint_of(identity),
        identity=identity,
        preprocess={"resize": image_size, "crop_pct": 1.0, "interpolation": "bilinear", "antialias": False},
    )


def _enlarge(images_NHW: Tensor, size: int) -> Tensor:
    """Convert grey values 0 to 16 of (N, 8, 8) to uint8 (N, size, size, 3)."""
    grey = images_NHW[:, None].float() * (255.0 / 16.0)
    large = functional.interpolate(grey, (size, size), mode="bilinear", align_corners=False)
    return large.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
