"""Augmented and mixed training images compared with the reference, which computes one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
import torch
from torch import Tensor

from tests.reference.training_cases import Case, random_case
from tests.reference.training_draws import Draws
from tests.reference.training_images import mixed, training_image
from tests.reference.training_sides import CPU, MEAN, STD, drawn_quantile
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.augment.mixing import Mixer, beta_quantiles
from trainer.data.draws import EpochDraws


def augmented(case: Case, epoch: int) -> tuple[Tensor, Tensor, list[int]]:
    """All images of a case by the trainer and by the reference, and their order."""
    config, pixels = case.config(), case.pixels()
    order = torch.randperm(case.images, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(case.images)
    augment = Augment(config=config.data, normalize=Normalize.of(MEAN, STD, CPU), seed=config.run.seed)
    images = augment(pixels, order, order, positions, epoch)
    expected = [
        training_image(pixels[row], row, Draws(config.run.seed, epoch, position), config.data, MEAN, STD)
        for position, row in enumerate(order.tolist())
    ]
    return images, torch.stack(expected), order.tolist()


@pytest.mark.parametrize("seed", range(30))
def test_augmented_images_equal_those_of_the_reference(seed: int) -> None:
    random = Random(seed)
    case = random_case(random)
    images, expected, _ = augmented(case, random.randrange(3))
    # Between two pixels, a coordinate in fp32 is exact to about 1e-6 of a pixel.
    torch.testing.assert_close(
        images.double(), expected, rtol=1e-5, atol=1e-4 if "resized_crop" in case.settings["data"] else 2e-6
    )


@pytest.mark.parametrize("settings", [{"mixup": 0.3}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 0.5}, {"mixup": 4.0}])
@pytest.mark.parametrize("seed", range(5))
def test_mixed_images_equal_those_of_the_reference(settings: dict[str, float], seed: int) -> None:
    case = random_case(Random(seed))
    case.settings["data"] |= {"mixup": 0.0, "cutmix": 0.0} | settings
    config = case.config()
    images, _, _ = augmented(case, epoch=2)
    mixer = Mixer.of(config.data, CPU)
    assert mixer is not None
    mix = mixer(torch.arange(len(images)), EpochDraws(config.run.seed, epoch=2), images.shape[-1])
    blended = mix(images, images.roll(1, 0))
    for position in range(len(images)):
        own, partner = images[position].double(), images[position - 1].double()
        draws = Draws(config.run.seed, 2, position)
        image, share = mixed(own, partner, draws, config.data, drawn_quantile)
        assert float(mix.share_N[position]) == pytest.approx(share, abs=1e-6)
        torch.testing.assert_close(blended[position].double(), image, rtol=1e-5, atol=1e-5)


QUANTILES: dict[float, Callable[[float], float]] = {
    0.5: lambda p: math.sin(math.pi * p / 2) ** 2,
    1.0: lambda p: p,
    2.0: lambda p: 0.5 - math.sin(math.asin(1 - 2 * p) / 3),
}
"""Quantiles of Beta(a, a) in closed form: arcsine and uniform distribution, and the root of 3 x^2 - 2 x^3 = p."""


@pytest.mark.parametrize("strength", QUANTILES)
def test_shares_of_mixes_are_drawn_from_a_beta_distribution(strength: float) -> None:
    table = beta_quantiles(strength).tolist()
    expected = [QUANTILES[strength](index / (len(table) - 1)) for index in range(len(table))]
    assert table == pytest.approx(expected, abs=1e-3)  # the density is integrated in 65,536 steps
    assert [drawn_quantile(strength, p) for p in (0.1, 0.7)] == pytest.approx(
        [QUANTILES[strength](p) for p in (0.1, 0.7)], abs=1e-3
    )
