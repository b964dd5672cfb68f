"""Images that show their own number, and a classifier that looks the number up, so that answers can be traced to images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.folder.decoder import Decoder

SIDE = 4


def numbered_image(number: int) -> Image.Image:
    """A plain image whose red is its number, 0 to 255."""
    return Image.new("RGB", (SIDE, SIDE), (number, 90, 200))


def write_images(folder: Path, count: int, broken: Sequence[int] = ()) -> list[str]:
    """Write `000.png` and so on, each with the image of its number; broken ones are not images."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        numbered_image(number).save(path)
        if number in broken:
            path.write_bytes(b"no picture")
    return [str(path) for path in paths]


class NumberClassifier:
    """Answers image number n with row n of a table of probabilities."""

    def __init__(self, table_MK: NDArray[np.float32], reading: int = 2) -> None:
        self.origin = "numbers"
        self.classes = tuple(f"class {label}" for label in range(table_MK.shape[1]))
        self.decoder = Decoder(image_size=SIDE, crop_pct=1.0, reading=reading)
        self.table_MK = table_MK

    @classmethod
    def random(cls, pictures: int, classes: int, seed: int, nonfinite: Sequence[int] = ()) -> NumberClassifier:
        """Random probabilities for each image, some of them NaN."""
        powers = np.exp(np.random.default_rng(seed).normal(0, 2, (pictures, classes)))
        table_MK: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
        table_MK[list(nonfinite), 0] = np.nan
        return cls(table_MK)

    def probabilities(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The rows of the table for a batch of images."""
        return self.table_MK[pixels_NHWC[:, 0, 0, 0]]
