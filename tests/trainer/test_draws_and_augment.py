from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import DataConfig
from trainer.data.augment import Augment, Normalize
from trainer.data.draws import Stream, draw, draw_below, epoch_order

IDENTITY = Normalize.of([0.0] * 3, [1 / 255] * 3, torch.device("cpu"))


def augment(
    pixels: Tensor, epoch: int = 0, seed: int = 0, positions: Tensor | None = None, **settings: object
) -> Tensor:
    """All images of a data set as one batch, in pixel units, NHWC."""
    config = DataConfig.model_validate({"image_size": pixels.shape[1], **settings})
    rows = torch.arange(len(pixels))
    made = Augment(config=config, normalize=IDENTITY, seed=seed)(
        pixels, rows, rows, rows if positions is None else positions, epoch
    )
    return made.permute(0, 2, 3, 1)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(1, 256, (40, 8, 8, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_draws_are_splitmix64() -> None:
    """The finalizer is checked against the published first output for the state 0 (Steele et al., reference code)."""
    from trainer.data.draws import _mix_int

    assert _mix_int(0) == 0xE220A8397B1DCDAF


def test_draws_depend_on_every_part_of_the_key_and_on_nothing_else() -> None:
    positions = torch.arange(1000)
    base = draw(positions, seed=1, epoch=2, stream=Stream.FLIP)
    assert torch.equal(base, draw(positions, seed=1, epoch=2, stream=Stream.FLIP))
    assert torch.equal(base[500:], draw(positions[500:], seed=1, epoch=2, stream=Stream.FLIP))
    for other in ({"seed": 2}, {"epoch": 3}, {"stream": Stream.CROP_X}):
        key = {"seed": 1, "epoch": 2, "stream": Stream.FLIP} | other
        assert (base == draw(positions, **key)).float().mean() < 0.01  # type: ignore[arg-type]
    assert int(base.min()) >= 0


def test_draws_are_uniform() -> None:
    values = draw_below(9, torch.arange(90_000), seed=3, epoch=0, stream=Stream.CROP_Y)
    counts = torch.bincount(values, minlength=9)
    assert int(counts.min()) > 9_600
    assert int(counts.max()) < 10_400


def test_an_epochs_order_is_a_permutation_of_its_own() -> None:
    first, second = (epoch_order(1000, seed=0, epoch=epoch) for epoch in (0, 1))
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert (first == second).float().mean() < 0.02


def test_without_augmentation_nothing_changes(pixels: Tensor) -> None:
    assert torch.equal(augment(pixels), pixels.float())


def test_alternating_flip_shows_each_side_every_second_epoch(pixels: Tensor) -> None:
    first, second, third = (augment(pixels, epoch, flip="alternate") for epoch in (0, 1, 2))
    assert torch.equal(first, third)
    assert torch.equal(first.flip(2), second)
    flipped = [not torch.equal(image, original.float()) for image, original in zip(first, pixels, strict=True)]
    assert 8 < sum(flipped) < 32


@pytest.mark.parametrize("pad", ["zero", "reflect"])
def test_crops_are_windows_of_the_padded_image(pixels: Tensor, pad: str) -> None:
    made = augment(pixels, crop_pad=3, pad=pad)
    mode = {"zero": "constant", "reflect": "reflect"}[pad]
    padded = functional.pad(pixels.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode=mode).permute(0, 2, 3, 1)
    offsets = set()
    for image, source in zip(made, padded, strict=True):
        windows = [(y, x) for y in range(7) for x in range(7) if torch.equal(image, source[y : y + 8, x : x + 8])]
        assert windows, "an image is no window of its padded source"
        offsets.add(windows[0])
    assert len(offsets) > 15


def test_cutout_sets_a_square_to_the_mean(pixels: Tensor) -> None:
    made = augment(pixels, cutout=4)
    holes = (made == 0).all(3)
    for hole, image, source in zip(holes, made, pixels, strict=True):
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert 2 <= int(rows) <= 4
        assert int(hole.sum()) == int(rows * columns)
        assert torch.equal(image[~hole], source.float()[~hole])


def test_a_batch_does_not_depend_on_how_it_is_cut(pixels: Tensor) -> None:
    config = DataConfig.model_validate({"image_size": 8, "crop_pad": 2, "flip": "random", "cutout": 3})
    make = Augment(config=config, normalize=IDENTITY, seed=5)
    ids, positions = epoch_order(40, seed=5, epoch=1), torch.arange(40)
    whole = make(pixels, ids, ids, positions, 1)
    parts = [make(pixels, ids[s], ids[s], positions[s], 1) for s in (slice(0, 13), slice(13, 40))]
    assert torch.equal(whole, torch.cat(parts))
    streamed = make(pixels[ids], torch.arange(40), ids, positions, 1)
    assert torch.equal(whole, streamed)


def test_batches_come_in_channels_last_memory(pixels: Tensor) -> None:
    config = DataConfig.model_validate({"image_size": 8})
    rows = torch.arange(4)
    batch = Augment(config=config, normalize=IDENTITY, seed=0)(pixels, rows, rows, rows, 0)
    assert batch.is_contiguous(memory_format=torch.channels_last)
