"""Odd pictures: one of each kind among ordinary ones is found, and equally odd ones are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.support.progress import quiet
from tests.support.scenes import scene
from trainer.audit.odd_pictures import find_odd
from trainer.audit.picture_facts import measure_files

SIZE = (320, 240)
ODD: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(12)),
    "dark": lambda image: image.point(lambda value: value * 0.1),
    "bright": lambda image: image.point(lambda value: 225 + value * 0.12),
    "nearly empty": lambda image: image.point(lambda value: 120 + value * 0.02),
    "small": lambda image: image.resize((64, 48)),
    "odd proportions": lambda image: image.resize((900, 120)),
}


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ordinary")
    paths = [str(folder / f"{seed}.png") for seed in range(40)]
    for seed, path in enumerate(paths):
        scene(seed, SIZE).save(path)
    return paths


@pytest.mark.parametrize("kind", ODD)
def test_one_of_each_kind_is_found(ordinary: list[str], tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "odd.png")
    ODD[kind](scene(99, SIZE)).save(path)
    facts, _, _ = measure_files([*ordinary, path], quiet)
    found = find_odd(facts, np.zeros(41, np.int64))
    assert (40, kind) in {(one.row, one.kind) for one in found}
    assert {one.row for one in found} == {40}


def test_a_class_of_equally_dark_pictures_has_no_odd_one(ordinary: list[str], tmp_path: Path) -> None:
    dark = [str(tmp_path / f"{seed}.png") for seed in range(20)]
    for seed, path in enumerate(dark):
        ODD["dark"](scene(seed, SIZE)).save(path)
    facts, _, _ = measure_files([*ordinary, *dark], quiet)
    assert [one for one in find_odd(facts, np.array([0] * 40 + [1] * 20)) if one.kind == "dark"] == []


def test_upright_size_and_reasons_of_unreadable_files(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    scene(1, (80, 40)).save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths = [str(tmp_path / name) for name in ("broken.png", "gone.png", "turned.jpg")]
    facts, kept, lost = measure_files(paths, quiet)
    assert kept == [2]
    assert (int(facts.width_N[0]), int(facts.height_N[0])) == (40, 80)
    assert [path for path, _ in lost] == paths[:2]
    assert "No such file" in lost[1][1]
