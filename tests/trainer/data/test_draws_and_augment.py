"""Random draws and augmentation: distributions, independence of batches, and agreement with Pillow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn import functional

from trainer.config.data_config import DataConfig
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.augment.geometry import sample
from trainer.data.augment.mixing import Mix, Mixer, beta_quantiles
from trainer.data.augment.trivial_augment import OPERATIONS, Operations
from trainer.data.draws import EpochDraws, Stream, balanced_order, draw, epoch_order

AFFINE = Image.Transform.AFFINE
IDENTITY = Normalize.of([0.0] * 3, [1 / 255] * 3, torch.device("cpu"))


def augment(
    pixels: Tensor, epoch: int = 0, seed: int = 0, positions: Tensor | None = None, **settings: object
) -> Tensor:
    """All images of a data set as one augmented batch, in pixel units, NHWC."""
    config = DataConfig.model_validate({"image_size": pixels.shape[1], **settings})
    rows = torch.arange(len(pixels))
    images = Augment(config=config, normalize=IDENTITY, seed=seed)(
        pixels, rows, rows, rows if positions is None else positions, epoch
    )
    return images.permute(0, 2, 3, 1)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(1, 256, (40, 8, 8, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_draws_are_splitmix64() -> None:
    """The finalizer gives the published first output for state 0 (Steele et al., reference code)."""
    from trainer.data.draws import _mix_int

    assert _mix_int(0) == 0xE220A8397B1DCDAF


def test_draws_depend_only_on_their_key() -> None:
    positions = torch.arange(1000)
    base = draw(positions, seed=1, epoch=2, stream=Stream.FLIP)
    assert torch.equal(base, draw(positions, seed=1, epoch=2, stream=Stream.FLIP))
    assert torch.equal(base[500:], draw(positions[500:], seed=1, epoch=2, stream=Stream.FLIP))
    for other in ({"seed": 2}, {"epoch": 3}, {"stream": Stream.CROP_X}):
        key = {"seed": 1, "epoch": 2, "stream": Stream.FLIP} | other
        assert (base == draw(positions, **key)).float().mean() < 0.01  # type: ignore[arg-type]
    assert int(base.min()) >= 0


def test_draws_are_uniform() -> None:
    values = EpochDraws(3).below(9, torch.arange(90_000), Stream.CROP_Y)
    counts = torch.bincount(values, minlength=9)
    assert int(counts.min()) > 9_600
    assert int(counts.max()) < 10_400


def test_each_epoch_has_its_own_permutation() -> None:
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
    images = augment(pixels, crop_pad=3, pad=pad)
    mode = {"zero": "constant", "reflect": "reflect"}[pad]
    padded = functional.pad(pixels.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode=mode).permute(0, 2, 3, 1)
    offsets = set()
    for image, source in zip(images, padded, strict=True):
        windows = [(y, x) for y in range(7) for x in range(7) if torch.equal(image, source[y : y + 8, x : x + 8])]
        assert windows, "an image is not a window of its padded source"
        offsets.add(windows[0])
    assert len(offsets) > 15


def test_cutout_sets_a_square_to_the_mean(pixels: Tensor) -> None:
    images = augment(pixels, cutout=4)
    holes = (images == 0).all(3)
    for hole, image, source in zip(holes, images, pixels, strict=True):
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert 2 <= int(rows) <= 4
        assert int(hole.sum()) == int(rows * columns)
        assert torch.equal(image[~hole], source.float()[~hole])


def test_augmentation_does_not_depend_on_the_division_into_batches(pixels: Tensor) -> None:
    config = DataConfig.model_validate({"image_size": 8, "crop_pad": 2, "flip": "random", "cutout": 3})
    augment_batch = Augment(config=config, normalize=IDENTITY, seed=5)
    ids, positions = epoch_order(40, seed=5, epoch=1), torch.arange(40)
    whole = augment_batch(pixels, ids, ids, positions, 1)
    parts = [augment_batch(pixels, ids[s], ids[s], positions[s], 1) for s in (slice(0, 13), slice(13, 40))]
    assert torch.equal(whole, torch.cat(parts))
    streamed = augment_batch(pixels[ids], torch.arange(40), ids, positions, 1)
    assert torch.equal(whole, streamed)


def test_resized_crops_have_the_configured_areas_and_aspects(pixels: Tensor) -> None:
    """An image whose colours are its coordinates shows the cropped box."""
    ramp = torch.arange(64, dtype=torch.uint8) * 4
    picture = torch.stack((ramp[:, None].expand(64, 64), ramp[None].expand(64, 64), ramp.new_zeros(64, 64)), dim=2)
    images = augment(picture[None].expand(400, -1, -1, -1), resized_crop=0.25, flip="random")
    height = (images[:, -1, 32, 0] - images[:, 0, 32, 0]) / (63 * 4)
    width = (images[:, 32, -1, 1] - images[:, 32, 0, 1]) / (63 * 4)
    area = height * width.abs()
    assert 0.22 < float(area.min()) < 0.30
    assert float(area.max()) > 0.9
    assert float((width < 0).float().mean()) == pytest.approx(0.5, abs=0.1), "half of them are mirrored"
    aspect = width.abs() / height
    assert 0.72 < float(aspect.min()) < 0.8
    assert 1.25 < float(aspect.max()) < 1.37
    assert float(images[..., :2].amax()) <= 255


def one_operation(name: str, strength: float, pixels: Tensor, sign: float = 1.0) -> Tensor:
    number = len(pixels)
    operations = Operations(
        operation_N=torch.full((number,), OPERATIONS.index(name)),
        strength_N=torch.full((number,), strength),
        sign_N=torch.full((number,), sign),
    )
    return operations.recolored(sample(pixels, operations.views(), side=pixels.shape[1], pad="zero"))


PILLOW: dict[str, Callable[[Image.Image], Image.Image]] = {
    "identity": lambda image: image,
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.495),
    "color": lambda image: ImageEnhance.Color(image).enhance(1.495),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.495),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1.495),
    "posterize": lambda image: ImageOps.posterize(image, 5),
    "solarize": lambda image: ImageOps.solarize(image, 128),
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
}


@pytest.fixture(scope="module", params=["noise", "few values", "half white", "half black", "one value"])
def photographs(request: pytest.FixtureRequest) -> Tensor:
    """Images with various histograms, since some operations depend on them."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(20, 200, (3, 24, 24, 3), generator=generator)
    half = torch.rand(noise.shape, generator=generator) < 0.6
    return {
        "noise": noise,
        "few values": torch.tensor([10, 60, 200])[noise % 3],
        "half white": noise.masked_fill(half, 255),
        "half black": noise.masked_fill(half, 0),
        "one value": torch.full_like(noise, 77),
    }[request.param].to(torch.uint8)


@pytest.mark.parametrize("name", PILLOW)
def test_colour_operations_agree_with_pillow(name: str, photographs: Tensor) -> None:
    images = one_operation(name, 0.5, photographs)
    # Pillow rounds to whole numbers.
    tolerance = {"posterize": 0.0, "solarize": 0.0, "equalize": 0.0, "identity": 0.001}.get(name, 1.3)
    for image, source in zip(images, photographs, strict=True):
        wanted = torch.from_numpy(np.array(PILLOW[name](Image.fromarray(source.numpy())))).float()
        assert float((image - wanted).abs().max()) <= tolerance


@pytest.mark.parametrize(("pad", "mode"), [("zero", "constant"), ("reflect", "symmetric")])
@pytest.mark.parametrize("flip", ["none", "random"])
def test_crops_are_the_same_windows_with_operations(
    pixels: Tensor, pad: str, mode: Literal["constant", "symmetric"], flip: str
) -> None:
    """Images with the identity operation are exact windows; sampling mirrors at the edge of the outermost pixels."""
    draws, rows = EpochDraws(0), torch.arange(40)
    unchanged = (Operations.drawn(rows, draws).operation_N == OPERATIONS.index("identity")).nonzero().flatten()
    columns, lines = (draws.below(7, rows, stream) for stream in (Stream.CROP_X, Stream.CROP_Y))
    images = augment(pixels, crop_pad=3, pad=pad, flip=flip, trivial_augment=True)
    flipped = draws.below(2, rows, Stream.FLIP) * (flip == "random")
    assert len({(int(lines[row]), int(columns[row]), int(flipped[row])) for row in unchanged}) > 2
    for row in unchanged.tolist():
        padded = np.pad(pixels[row].numpy(), ((3, 3), (3, 3), (0, 0)), mode=mode)
        window = padded[lines[row] :, columns[row] :][:8, :8]
        wanted = window[:, ::-1] if flipped[row] else window
        assert images[row].numpy() == pytest.approx(wanted.astype(np.float32), abs=0.01)


@pytest.mark.parametrize(
    ("name", "strength", "wanted"),
    [
        ("rotate", 90 / 135, lambda image: image.rotate(90)),
        ("translate_x", 0.5 * 224 / 32, lambda image: image.transform(image.size, AFFINE, (1, 0, 12, 0, 1, 0))),
        ("translate_y", 0.5 * 224 / 32, lambda image: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, 12))),
    ],
)
def test_rotations_and_translations_agree_with_pillow(
    name: str, strength: float, wanted: Callable[[Image.Image], Image.Image]
) -> None:
    noise = torch.randint(0, 256, (1, 24, 24, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = one_operation(name, strength, noise)[0]
    expected = torch.from_numpy(np.array(wanted(Image.fromarray(noise[0].numpy())))).float()
    assert float((images - expected).abs().max()) <= 0.02


def test_shears_move_opposite_edges_in_opposite_directions() -> None:
    bar = torch.zeros(1, 33, 33, 3, dtype=torch.uint8)
    bar[:, :, 15:18] = 255
    sheared = one_operation("shear_x", 0.3, bar)[0, :, :, 0]
    columns = sheared.argmax(1)
    assert int(columns[0]) - int(columns[-1]) == pytest.approx(0.297 * 32, abs=1.5)
    assert int(columns[16]) in (15, 16, 17)


def test_every_operation_is_drawn_about_equally_often() -> None:
    drawn = Operations.drawn(torch.arange(14_000), EpochDraws(0))
    counts = torch.bincount(drawn.operation_N, minlength=14)
    assert int(counts.min()) > 900
    assert {round(30 * value) for value in drawn.strength_N.unique().tolist()} == set(range(31))


def test_erased_rectangles_have_the_configured_size(pixels: Tensor) -> None:
    big = torch.full((600, 32, 32, 3), 9, dtype=torch.uint8)
    holes = (augment(big, random_erase=0.5) == 0).all(3)
    erased = holes.flatten(1).any(1)
    assert float(erased.float().mean()) == pytest.approx(0.5, abs=0.07)
    for hole in holes[erased]:
        rows, columns = int(hole.any(1).sum()), int(hole.any(0).sum())
        assert int(hole.sum()) == rows * columns
        assert 0.01 < rows * columns / 1024 < 0.37


def test_sampling_does_not_depend_on_the_division_into_batches(pixels: Tensor) -> None:
    settings = {"image_size": 8, "resized_crop": 0.3, "flip": "random", "trivial_augment": True, "random_erase": 0.5}
    augment_batch = Augment(config=DataConfig.model_validate(settings), normalize=IDENTITY, seed=5)
    ids, positions = epoch_order(40, seed=5, epoch=1), torch.arange(40)
    whole = augment_batch(pixels, ids, ids, positions, 1)
    parts = [augment_batch(pixels, ids[s], ids[s], positions[s], 1) for s in (slice(0, 13), slice(13, 40))]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-3)


@pytest.mark.parametrize("a", [0.1, 0.2, 1.0, 4.0])
def test_shares_of_a_mix_are_beta_distributed(a: float) -> None:
    quantiles = beta_quantiles(a).double()
    reference = torch.from_numpy(np.random.default_rng(0).beta(a, a, 200_000)).sort().values
    at = (torch.linspace(0.01, 0.99, 50) * (len(reference) - 1)).long()
    assert torch.allclose(quantiles[(torch.linspace(0.01, 0.99, 50) * 4095).long()], reference[at], atol=0.012)


def mixed(pixels: Tensor, positions: Tensor, **settings: float) -> tuple[Tensor, Mix]:
    config = DataConfig.model_validate({"image_size": pixels.shape[1], **settings})
    mixer = Mixer.of(config, torch.device("cpu"))
    assert mixer is not None
    images = pixels.float().permute(0, 3, 1, 2)
    mix = mixer(positions, EpochDraws(3, epoch=2), pixels.shape[1])
    return mix(images, images.roll(1, 0)), mix


def test_mixup_blends_images_and_labels_equally(pixels: Tensor) -> None:
    blended, mix = mixed(pixels, torch.arange(40), mixup=1.0)
    images = pixels.float().permute(0, 3, 1, 2)
    share = mix.share_N[:, None, None, None]
    assert torch.allclose(blended, images * share + images.roll(1, 0) * (1 - share))
    assert not mix.cut_N.any()
    assert 0.35 < float(mix.share_N.mean()) < 0.65
    losses = mix.loss(torch.ones(40), torch.zeros(40))
    assert torch.equal(losses, mix.share_N)


def test_cutmix_takes_a_rectangle_and_its_share_of_the_label() -> None:
    ones = torch.ones(60, 20, 20, 3, dtype=torch.uint8)
    ones[::2] = 2
    images, mix = mixed(ones, torch.arange(60), cutmix=1.0)
    own = (images == ones.float().permute(0, 3, 1, 2)).all(1)
    assert mix.cut_N.all()
    assert torch.allclose(own.float().mean((1, 2)), mix.share_N, atol=1e-5)
    for hole in ~own:
        assert int(hole.sum()) == int(hole.any(1).sum()) * int(hole.any(0).sum())


def test_mixup_and_cutmix_share_the_images(pixels: Tensor) -> None:
    _, mix = mixed(pixels.repeat(20, 1, 1, 1), torch.arange(800), mixup=0.3, cutmix=1.0)
    assert float(mix.cut_N.float().mean()) == pytest.approx(0.5, abs=0.06)
    first, again = (mixed(pixels[:3], torch.arange(5, 8), mixup=0.3)[1].share_N for _ in range(2))
    whole = mixed(pixels, torch.arange(40), mixup=0.3)[1].share_N
    assert torch.equal(first, again)
    assert torch.equal(whole[5:8], first), "a mix depends on the position alone"


def test_a_balanced_epoch_shows_all_classes_equally_often() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    order = balanced_order(labels, seed=1, epoch=0)
    assert torch.bincount(labels[order]).tolist() in ([34, 33, 33], [33, 34, 33], [33, 33, 34])
    times = torch.bincount(order, minlength=100)
    assert int(times[:70].max()) == 1
    assert sorted(times[70:90].unique().tolist()) in ([1, 2], [1])
    assert sorted(times[90:].unique().tolist()) in ([3], [3, 4])
    assert not torch.equal(order, balanced_order(labels, seed=1, epoch=1))
    assert torch.equal(order, balanced_order(labels, seed=1, epoch=0))
    assert not torch.equal(labels[order].sort().values, labels[order]), "classes are mixed"


def test_batches_are_in_channels_last_memory(pixels: Tensor) -> None:
    config = DataConfig.model_validate({"image_size": 8})
    rows = torch.arange(4)
    batch = Augment(config=config, normalize=IDENTITY, seed=0)(pixels, rows, rows, rows, 0)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_training_images_of_the_first_epochs_are_smaller() -> None:
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).mul(255).to(torch.uint8)
    pixels = board[None, :, :, None].expand(2, 32, 32, 3).contiguous()
    epochs = [augment(pixels, epoch=epoch, progressive=[[16, 2], [24, 1]], flip="alternate") for epoch in range(5)]
    assert [tuple(images.shape[1:3]) for images in epochs] == [(16, 16), (16, 16), (24, 24), (32, 32), (32, 32)]
    assert torch.allclose(epochs[0][:, 1:-1, 1:-1], torch.tensor(127.5), atol=0.5), "pixels are averaged, not skipped"
    assert set(epochs[3].unique().tolist()) == {0.0, 255.0}
