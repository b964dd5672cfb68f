"""Images that vanish or break during a run: skipped once, reported, and refused where most of a batch is gone."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import FolderMaker
from tests.support.streams import CPU, WHOLE, Warnings, epoch_of, train_split
from trainer.data import image_folder
from trainer.data.batches.batches import evaluation_batches
from trainer.data.batches.lost_images import LostImages
from trainer.data.batches.resident import ResidentBatches
from trainer.data.dataset import ResidentSplit
from trainer.data.image_folder import FolderSplit
from trainer.errors import DataLostError


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_image_is_skipped_and_reported_once(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    root, warnings = make_folder(), Warnings()
    split, gone = train_split(root), root / "train" / "red" / "003.png"
    row = split.paths.index(str(gone))
    gone.unlink()
    streamed = warnings.stream(split, WHOLE, workers)
    memory = ResidentBatches(train_split_before(split, row), WHOLE, CPU)
    for epoch in (0, 1):
        (batch,), (whole,) = epoch_of(streamed, epoch), list(memory.epoch(epoch, 0))
        left = whole.sample_ids_N != row
        assert len(batch) == 35
        assert torch.equal(batch.positions_N, whole.positions_N[left]), "the others keep their positions and draws"
        assert torch.equal(batch.sample_ids_N, whole.sample_ids_N[left])
        assert torch.equal(batch.labels_N, whole.labels_N[left])
        assert torch.equal(batch.pixels_MHWC, whole.pixels_MHWC[whole.rows_N[left]])
    streamed.close()
    (text,) = warnings
    assert text.startswith(f"{gone}: was readable at the start and no longer is, so it is skipped: ")
    assert "\n" not in text


def train_split_before(split: FolderSplit, lost: int) -> ResidentSplit:
    """The original pixels, with the lost image black."""
    pixels = torch.zeros(len(split), 8, 8, 3, dtype=torch.uint8)
    for row in set(range(len(split))) - {lost}:
        pixels[row] = split.pixels([row])[0]
    return ResidentSplit(pixels, split.labels_N)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_vanished_folder_is_an_error_with_advice(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    root = make_folder()
    split = train_split(root)
    (root / "train").rename(root / "elsewhere")
    streamed = Warnings().stream(split, WHOLE, workers)
    with pytest.raises(DataLostError, match=r"36 of 36 images of a batch\); restore the folder, then resume") as caught:
        epoch_of(streamed, 0)
    streamed.close()
    assert multiprocessing.active_children() == []
    assert "\n" not in str(caught.value)


def test_an_evaluation_skips_and_reports_a_lost_image(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    root, warnings = make_folder(), Warnings()
    split = train_split(root)
    gone = Path(split.paths[20])
    gone.write_bytes(b"no image")
    batches = list(evaluation_batches(split, 16, CPU, LostImages(warnings.append)))
    assert [(len(labels), len(rows)) for _, labels, rows in batches] == [(16, 16), (15, 15), (4, 4)]
    assert [*batches[1][2]] == [row for row in range(16, 32) if row != 20]
    assert torch.equal(
        torch.cat([labels for _, labels, _ in batches]), torch.cat((split.labels_N[:20], split.labels_N[21:]))
    )
    assert len(warnings) == 1
    assert str(gone) in warnings[0]


def test_a_last_batch_may_lose_all_of_its_few_images(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    root, warnings = make_folder(), Warnings()
    split = train_split(root)
    Path(split.paths[35]).unlink()
    lost = LostImages(warnings.append)
    assert [len(labels) for _, labels, _ in evaluation_batches(split, 35, CPU, lost)] == [35, 0]
    lost.note([("x", "gone")], 3, least=2)
    with pytest.raises(DataLostError, match="restore the folder"):
        lost.note([("x", "gone")], 2, least=2)
    with pytest.raises(DataLostError, match="5 of 8"):
        lost.note([("x", "gone")] * 5, 8)


def test_a_temporarily_missing_file_is_read_again(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    split = train_split(root)
    file = Path(split.paths[5])
    content = file.read_bytes()
    file.unlink()
    monkeypatch.setattr(time, "sleep", lambda _: file.write_bytes(content))
    reading = split.read(range(36), threads=1)
    assert reading.lost == []
    assert reading.kept == list(range(36))
