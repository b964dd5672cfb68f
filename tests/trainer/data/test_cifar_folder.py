"""CIFAR-10 as an image folder: set R18_CIFAR_DIR to a folder with `train/<class>` and `test/<class>`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainer.data.dataset import channel_statistics
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import PixelStorage, load_image_folder

pytestmark = [
    pytest.mark.cifar,
    pytest.mark.skipif("R18_CIFAR_DIR" not in os.environ, reason="R18_CIFAR_DIR is not set"),
]


def test_the_original_pixels_have_the_published_statistics() -> None:
    """Mean (0.4914, 0.4822, 0.4465) and std (0.2470, 0.2435, 0.2616) of the 50,000 training images."""
    data = load_image_folder(
        Path(os.environ["R18_CIFAR_DIR"]), decoder=Decoder(image_size=32, crop_pct=1.0), keep=lambda _: PixelStorage.RESIDENT,
        progress=lambda *_: None,
    )  # fmt: skip
    assert len(data.splits["train"]) == 50_000
    assert torch.bincount(data.splits["test"].labels_N).tolist() == [1000] * 10
    assert data.skipped == ()
    mean, std = channel_statistics(data.splits["train"], lambda *_: None)
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert std == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
