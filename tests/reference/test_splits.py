"""`held_out` and the division of data sources: shares of each class, copies, contradictory images, seeds."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference.evaluation_pictures import SIDE, write_images
from tests.support.progress import quiet
from trainer.data import image_folder
from trainer.data.dataset import ResidentSplit, with_held_out
from trainer.data.folder.decoder import Decoder, decoded_or_reasons
from trainer.data.folder.held_out import hold_out
from trainer.data.image_folder import FolderSplit, Keep, load_image_folder
from trainer.errors import DataError

SHARES = {"val": 0.25, "test": 0.2}


def test_an_image_in_two_classes_and_its_copies_are_not_held_out() -> None:
    """Image a is once in class 0 and twice in class 1, and has the smallest key, which is held out first."""
    rows = hold_out(list("abcdaaef"), [0, 0, 0, 0, 1, 1, 1, 1], {"val": 0.25})
    assert rows == {"train": [0, 2, 3, 4, 5, 7], "val": [1, 6]}


def test_copies_are_held_out_together_or_not_at_all() -> None:
    """Two of eight images are wanted: the three copies of a are too many, and b comes with its copy."""
    rows = hold_out(list("aaabbcde"), [0] * 8, {"val": 0.25})
    assert rows == {"train": [0, 1, 2, 5, 6, 7], "val": [3, 4]}
    rows = hold_out(list("abbcdefg"), [0] * 8, {"val": 0.25})
    assert rows["val"] == [0, 3], "after a there is room for one image, but b has a copy"


@pytest.mark.parametrize(
    ("count", "share", "wanted"),
    [(4, 0.25, 1), (10, 0.25, 2), (11, 0.25, 3), (20, 0.15, 3), (2, 0.4, 1), (2, 0.9, 1), (3, 0.99, 2), (100, 0.01, 1)],
)
def test_the_share_is_rounded_and_one_image_stays_for_training(count: int, share: float, wanted: int) -> None:
    rows = hold_out(list(range(count))[::-1], [0] * count, {"val": share})
    assert rows["val"] == list(range(count - wanted, count)), "the images with the smallest keys"
    assert rows["train"] == list(range(count - wanted))


@pytest.mark.parametrize("shares", [{"val": 0.01}, {"val": 0.5, "test": 0.01}])
def test_a_share_without_images_is_refused(shares: dict[str, float]) -> None:
    name = list(shares)[-1]
    with pytest.raises(DataError, match=rf"data\.{name}_fraction 0.01 of 8 images leaves none for {name}"):
        hold_out(list(range(8)), [0] * 4 + [1] * 4, shares)


different = st.lists(st.integers(0, 2), min_size=10, max_size=60).flatmap(
    lambda labels: st.tuples(st.just(labels), st.permutations(range(len(labels))))
)


@given(drawn=different)
def test_each_class_gives_its_share_by_the_order_of_keys(
    drawn: tuple[list[int], list[int]],
) -> None:
    labels, keys = drawn
    wanted: dict[str, list[int]] = {"val": [], "test": []}
    for label in set(labels):
        ranked = sorted((row for row, own in enumerate(labels) if own == label), key=keys.__getitem__)
        for name in ("val", "test"):
            room = max(len(ranked) - 1, 0)
            count = min(round(labels.count(label) * SHARES[name]), room)
            wanted[name] += ranked[:count]
            del ranked[:count]
    if not wanted["val"] or not wanted["test"]:
        with pytest.raises(DataError):
            hold_out(keys, labels, SHARES)
        return
    rows = hold_out(keys, labels, SHARES)
    assert {name: set(rows[name]) for name in wanted} == {name: set(chosen) for name, chosen in wanted.items()}
    held_out = {row for chosen in wanted.values() for row in chosen}
    assert rows["train"] == [row for row in range(len(labels)) if row not in held_out]


@given(
    drawn=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.booleans()), min_size=8, max_size=60),
    share=st.sampled_from([0.2, 0.35, 0.5]),
)
def test_copies_stay_together_and_the_share_is_filled_as_far_as_possible(
    drawn: list[tuple[int, int, bool]], share: float
) -> None:
    """A third of the keys, including small ones, may have two labels."""
    keys = [key for key, _, _ in drawn]
    labels = [label if key % 3 == 0 and other else key % 3 for key, label, other in drawn]
    try:
        rows = hold_out(keys, labels, {"val": share})["val"]
    except DataError:
        rows = []
    label_sets = defaultdict(set)
    for key, label in zip(keys, labels, strict=True):
        label_sets[key].add(label)
    copies, held_out = Counter(keys), Counter(keys[row] for row in rows)
    for key, count in held_out.items():
        assert len(label_sets[key]) == 1, "contradictory images stay in train"
        assert count == copies[key], "copies stay together"
    for label in set(labels):
        total = labels.count(label)
        room = min(round(total * share), total - 1) - sum(labels[row] == label for row in rows)
        assert room >= 0
        left = [copies[key] for key in copies if label_sets[key] == {label} and key not in held_out]
        remaining = total - sum(labels[row] == label for row in rows)
        assert not any(number <= room and number < remaining for number in left), "another image would fit"


def test_images_in_memory_are_divided_by_seed_with_their_labels() -> None:
    pixels_NHWC = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(200, 2, 2, 3)
    train = ResidentSplit(pixels_NHWC, torch.arange(200) // 3 % 4)
    divided = with_held_out({"train": train}, SHARES, seed=0)
    assert {name: len(split) for name, split in divided.items()} == {"train": 110, "val": 50, "test": 40}
    seen = []
    for name, split in divided.items():
        assert isinstance(split, ResidentSplit)
        rows = split.pixels_NHWC[:, 0, 0, 0].long()
        assert torch.equal(split.labels_N, rows // 3 % 4), "each image has its own label"
        seen += rows.tolist()
        if name != "train":
            counts = Counter(split.labels_N.tolist()).values()
            assert max(counts) - min(counts) <= 1
    assert sorted(seen) == list(range(200))
    again = with_held_out({"train": train}, SHARES, seed=0)
    assert torch.equal(again["val"].labels_N, divided["val"].labels_N)
    assert torch.equal(again["val"].pixels(range(50)), divided["val"].pixels(range(50)))
    other = with_held_out({"train": train}, SHARES, seed=1)
    assert not torch.equal(other["val"].pixels(range(50)), divided["val"].pixels(range(50)))
    with_test = with_held_out({"train": train, "test": train}, SHARES, seed=0)
    assert with_test["test"] is train
    assert len(with_test["val"]) == 50


def test_every_image_is_held_out_equally_often() -> None:
    train = ResidentSplit(
        torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 1, 1, 3), torch.arange(40) % 2
    )
    times = torch.zeros(40)
    for seed in range(400):
        val = with_held_out({"train": train}, {"val": 0.25}, seed=seed)["val"]
        times[val.pixels(range(10))[:, 0, 0, 0].long()] += 1
    # 400 draws of a quarter: mean 100, standard deviation 8.7.
    assert 60 < float(times.min()) < 100 < float(times.max()) < 140


@pytest.mark.parametrize("keep", [Keep.STREAM, Keep.RESIDENT])
def test_a_folder_is_divided_by_content_with_paths_and_labels(tmp_path: Path, keep: Keep) -> None:
    """Three classes of different images; some are copied, one is in two classes, and one of each class is broken."""
    for label, first in (("a", 0), ("b", 40), ("c", 80)):
        write_images(tmp_path / "all" / label, first + 24, broken=[first + 5])
        for path in sorted((tmp_path / "all" / label).iterdir())[:first]:
            path.unlink()
    root = tmp_path / "all"
    for number in range(8):
        shutil.copy(root / "a" / f"{number:03d}.png", root / "a" / f"copy-{number}.png")
    twice = [root / "b" / "041.png", root / "c" / "zzz.png"]
    shutil.copy(*twice)
    data = load_image_folder(
        root, decoder=Decoder(image_size=SIDE, crop_pct=1.0), keep=lambda _: keep, progress=quiet, shares=SHARES, seed=4
    )
    split_of: dict[bytes, str] = {}
    seen: list[str] = []
    for name, split in data.splits.items():
        assert isinstance(split, FolderSplit if keep is Keep.STREAM else ResidentSplit)
        assert split.paths is not None
        for image_file, label, pixels in zip(split.paths, split.labels_N, split.pixels(range(len(split))), strict=True):
            content = Path(image_file).read_bytes()
            number = int(pixels[0, 0, 0])
            assert Path(image_file).parent.name == data.classes[int(label)]
            original = root / "abc"[number // 40] / f"{number:03d}.png"
            assert content == original.read_bytes(), "the pixels belong to the path"
            assert split_of.setdefault(content, name) == name
            seen.append(image_file)
    broken = {str(root / label / f"{first + 5:03d}.png") for label, first in (("a", 0), ("b", 40), ("c", 80))}
    broken.add(str(root / "a" / "copy-5.png"))
    assert {path for path, _ in data.skipped} == broken
    assert sorted(seen) == sorted(str(path) for path in root.rglob("*.png") if str(path) not in broken)
    assert split_of[twice[0].read_bytes()] == "train"


def test_images_lost_before_decoding_do_not_change_paths_or_labels_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        for label, first in (("a", 0), ("b", 6)):
            write_images(tmp_path / split / label, first + 6)
    gone = [str(tmp_path / "train" / label / f"{number:03d}.png") for label, number in (("a", 1), ("b", 0), ("b", 7))]

    def without(decoder: Decoder, paths: Sequence[str], threads: int | None) -> list[NDArray[np.uint8] | str]:
        return [
            "gone" if path in gone else decoded
            for path, decoded in zip(paths, decoded_or_reasons(decoder, paths, threads), strict=True)
        ]

    monkeypatch.setattr(image_folder, "decoded_or_reasons", without)
    decoder = Decoder(image_size=SIDE, crop_pct=1.0)
    data = load_image_folder(tmp_path, decoder=decoder, keep=lambda _: Keep.RESIDENT, progress=quiet)
    train = data.splits["train"]
    assert train.paths == [str(path) for path in sorted((tmp_path / "train").rglob("*.png")) if str(path) not in gone]
    assert [data.classes[label] for label in train.labels_N] == [Path(path).parent.name for path in train.paths]
    numbers = train.pixels(range(len(train)))[:, 0, 0, 0].tolist()
    assert numbers == [int(Path(path).stem) for path in train.paths]
    assert data.skipped == tuple((path, "gone") for path in gone)
