"""Writes pictures with their class activation maps over them, as PNG files. Torch-free by itself."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.evaluation.classifier import Classifier
from trainer.evaluation.heat import coloured
from trainer.host.atomic_files import write_atomically

_LONGEST_NAME = 60  # characters: four bytes each fit into any file system's name
_LEAST_SIDE = 224  # pixels: smaller images are enlarged by whole factors


class Explaining(Classifier, Protocol):
    """A classifier that can say which places of an image speak for its answer."""

    def explain(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Heat of each place: uint8 (N, h, w), 0 to 255."""


class Explanations:
    """Writes one file for each picture: what the network saw, and beside it the same with the map of its answer."""

    def __init__(self, folder: Path, classifier: Explaining) -> None:
        """Create the folder; OSError when that fails."""
        folder.mkdir(parents=True, exist_ok=True)
        self.problem = ""  # why no more files are written; empty while they are
        self._folder = folder
        self._classifier = classifier
        self._numbers: Counter[str] = Counter()

    def write(self, paths: Sequence[str], pixels_NHWC: NDArray[np.uint8], answers: Sequence[str]) -> None:
        """Write the explanations of a batch; a file is named after its picture and the answer."""
        if self.problem:
            return
        maps = self._classifier.explain(pixels_NHWC)
        try:
            for path, pixels_HWC, heat_YX, answer in zip(paths, pixels_NHWC, maps, answers, strict=True):
                times = math.ceil(_LEAST_SIDE / pixels_HWC.shape[0])
                enlarged = pixels_HWC.repeat(times, 0).repeat(times, 1)
                file = io.BytesIO()
                Image.fromarray(np.concatenate([enlarged, coloured(enlarged, heat_YX)], axis=1)).save(file, "png")
                write_atomically(self._folder / self._name(path, answer), file.getvalue(), private=False)
        except OSError as error:
            self.problem = f"--explain {self._folder}: no more pictures can be written: {error.strerror or error}"

    def _name(self, path: str, answer: str) -> str:
        """A name that no earlier picture of this call has: two folders may hold files of the same name."""
        stem = re.sub(r"[^\w.-]+", "-", f"{Path(path).stem}-{answer}")[:_LONGEST_NAME]
        self._numbers[stem.lower()] += 1
        number = self._numbers[stem.lower()]
        return f"{stem}.png" if number == 1 else f"{stem} ({number}).png"
