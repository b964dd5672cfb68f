"""Reads class names and normalisation from a model's metadata, with checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_names(text: str) -> tuple[str, ...]:
    """Class names by label; ValueError when the text is not a JSON list of different names.

    RecursionError when lists are nested too deeply.
    """
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"classes must be a list of distinct names, found {text:.60}")
    return tuple(names)


def normalization(preprocess: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor and shift of each channel, so that the input is `pixel * factor - shift`: float32 (3,) each.

    ValueError when mean or std are not numbers, or the input would be infinite.
    """
    mean, std = (np.array(preprocess[key], dtype=np.float32) for key in ("mean", "std"))
    with np.errstate(all="ignore"):
        scale, shift = (np.float32(1.0) / (np.float32(255.0) * std)).astype(np.float32), (mean / std).astype(np.float32)
        if not np.isfinite(255 * scale + abs(shift)).all():
            raise ValueError(f"std is too small: {preprocess['std']}")
    return scale, shift
