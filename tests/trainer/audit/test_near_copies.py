"""Near copies: changed pictures are found, different ones are not."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.progress import quiet
from tests.support.scenes import scene
from trainer.audit import near_copies
from trainer.audit.near_copies import RADIUS, Pair, connected, find_pairs
from trainer.audit.picture_facts import HASH_BITS, THUMBNAIL, PictureFacts, hash_thumbnails, measure_files, mirrored


def _compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=30)
    return Image.open(file).convert("RGB")


def _cropped(image: Image.Image, left: float, top: float, share: float = 0.95) -> Image.Image:
    width, height = (share * length for length in image.size)
    x, y = left * (image.width - width), top * (image.height - height)
    return image.crop((round(x), round(y), round(x + width), round(y + height)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((40, 30)),
    "larger": lambda image: image.resize((300, 225)),
    "other proportions": lambda image: image.resize((100, 100)),
    "compressed": _compressed,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter": lambda image: image.point(lambda value: min(value * 1.15, 255)),
    "cropped to the centre": lambda image: _cropped(image, 0.5, 0.5),
    "cropped to a corner": lambda image: _cropped(image, 0.0, 1.0),
    "cropped and mirrored": lambda image: _cropped(image, 0.5, 0.5).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def facts_of(tmp_path: Path, images: list[Image.Image]) -> PictureFacts:
    paths = [str(tmp_path / f"{number}.png") for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    facts, kept, lost = measure_files(paths, quiet)
    assert (kept, lost) == (list(range(len(images))), [])
    return facts


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found_among_others(tmp_path: Path, change: str) -> None:
    others = [scene(seed) for seed in range(30)]
    pairs = find_pairs(facts_of(tmp_path, [*others, CHANGES[change](others[7])]), quiet)
    assert [pair[:2] for pair in pairs] == [(7, 30)]
    assert pairs[0].is_mirrored == ("mirrored" in change)


def test_pictures_of_different_scenes_are_no_copies(tmp_path: Path) -> None:
    assert find_pairs(facts_of(tmp_path, [scene(seed) for seed in range(300)]), quiet) == []


def test_the_same_shapes_in_another_colour_are_another_picture(tmp_path: Path) -> None:
    one = scene(4)
    red, green, blue = one.split()
    assert find_pairs(facts_of(tmp_path, [one, Image.merge("RGB", (blue, green, red))]), quiet) == []


def test_many_copies_of_one_picture_are_as_many_pairs(tmp_path: Path) -> None:
    """Not a pair for each two of them."""
    copies = [scene(5), *(scene(5).resize((60 + number, 45 + number)) for number in range(15)), *[scene(5)] * 10]
    pairs = find_pairs(facts_of(tmp_path, [scene(1), *copies, scene(2)]), quiet)
    assert len(pairs) == len(copies) - 1
    assert connected(pairs) == [list(range(1, len(copies) + 1))]


def test_empty_pictures_are_no_copies_of_each_other(tmp_path: Path) -> None:
    grey = [Image.new("RGB", (50, 50), (level,) * 3) for level in (0, 128, 129, 255)]
    assert find_pairs(facts_of(tmp_path, grey), quiet) == []


def test_a_larger_crop_is_another_picture(tmp_path: Path) -> None:
    one = scene(3)
    assert find_pairs(facts_of(tmp_path, [one, _cropped(one, 0.0, 0.0, share=0.6)]), quiet) == []


@pytest.mark.parametrize("symmetric", [False, True])
def test_candidates_are_all_pairs_within_the_radius(monkeypatch: pytest.MonkeyPatch, symmetric: bool) -> None:
    """Counted bit by bit, with blocks that do not divide the number of pictures."""
    monkeypatch.setattr(near_copies, "_BLOCK", 16)
    monkeypatch.setattr(near_copies, "_CHECKED", 5)
    drawn = np.random.default_rng(1)
    centres = drawn.choice([-1, 1], (5, HASH_BITS))
    hashes = np.where(drawn.random((70, HASH_BITS)) < 0.12, -1, 1) * centres[drawn.integers(0, 5, 70)]
    alike = np.tile(np.arange(36, dtype=np.float32).reshape(6, 6), (70, 1, 1))
    searched = near_copies._Searched(hashes.astype(np.int8), alike)
    found = [
        tuple(pair)
        for _, pairs in near_copies._candidates(searched, searched, symmetric=symmetric)
        for pair in pairs.tolist()
    ]
    expected = [
        (first, second)
        for first, second in itertools.permutations(range(70), 2)
        if (hashes[first] != hashes[second]).sum() <= RADIUS
    ]
    assert sorted(found) == expected
    assert 100 < len(expected) < 70 * 69


def test_the_hash_of_a_mirror_image_follows_from_that_of_the_picture() -> None:
    thumbnails = np.stack([np.asarray(scene(seed, (THUMBNAIL, THUMBNAIL)).convert("L")) for seed in range(20)])
    plain, turned = hash_thumbnails(thumbnails), hash_thumbnails(thumbnails[:, :, ::-1])
    assert np.array_equal(mirrored(plain), turned)
    assert not np.array_equal(plain, turned)


def test_pairs_that_share_a_picture_are_one_set() -> None:
    pairs = [Pair(first, second, 1.0, False) for first, second in ((5, 9), (1, 2), (2, 7), (7, 8), (1, 8))]
    assert connected(pairs) == [[1, 2, 7, 8], [5, 9]]
    assert connected([]) == []
