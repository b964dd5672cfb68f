"""Orders of an epoch, balanced orders, plans, and the batches made of them, traced by the images' numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.reference.evaluation_pictures import SIDE, write_images
from trainer.data import image_folder
from trainer.data.batches.batches import Batch, Batches, BatchPlan, evaluation_batches
from trainer.data.batches.lost_images import LostImages
from trainer.data.batches.resident import ResidentBatches
from trainer.data.batches.stream import StreamedBatches
from trainer.data.dataset import ResidentSplit, Split
from trainer.data.draws import balanced_order, epoch_order
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import FolderSplit
from trainer.errors import DataLostError
from trainer.training.batch_source import feature_batches

CPU = torch.device("cpu")


def deviations(counts: Tensor) -> float:
    """Deviation of the chi-square of equally likely cells from its mean, in standard deviations."""
    expected = counts.sum().double() / counts.numel()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - (counts.numel() - 1)) / math.sqrt(2 * (counts.numel() - 1))


@given(number=st.integers(1, 200), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_an_order_is_a_permutation(number: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(number, seed=seed, epoch=epoch).tolist()) == list(range(number))


@pytest.mark.parametrize("seeds", [False, True])
def test_places_and_neighbours_of_images_are_uniform(seeds: bool) -> None:
    """For 12 images, over 3000 epochs of one seed or the first epoch of 3000 seeds."""
    orders = torch.stack([epoch_order(12, seed=key if seeds else 5, epoch=0 if seeds else key) for key in range(3000)])
    places = torch.stack([torch.bincount(orders[:, place], minlength=12) for place in range(12)])
    assert deviations(places.double()) < 6
    pairs = torch.bincount((orders[:, :-1] * 12 + orders[:, 1:]).flatten(), minlength=144)
    assert deviations(pairs[pairs > 0].double()) < 6
    assert int((pairs > 0).sum()) == 12 * 11
    moved = (orders[1:] == orders[:-1]).double().mean()
    assert float(moved) == pytest.approx(1 / 12, abs=0.006), "an epoch does not repeat the previous one"


labels_of_classes = st.lists(st.integers(1, 30), min_size=1, max_size=5).flatmap(
    lambda counts: st.permutations([label for label, count in enumerate(counts) for _ in range(count)])
)


@settings(max_examples=60, deadline=None)
@given(labels=labels_of_classes, seed=st.integers(0, 10**6), epoch=st.integers(0, 50))
def test_a_balanced_epoch_shows_classes_and_their_images_equally_often(
    labels: list[int], seed: int, epoch: int
) -> None:
    order = balanced_order(torch.tensor(labels), seed=seed, epoch=epoch).tolist()
    assert len(order) == len(labels)
    shown, counts = Counter(labels[row] for row in order), Counter(labels)
    assert set(shown) == set(counts)
    assert max(shown.values()) - min(shown.values()) <= 1
    times = Counter(order)
    for label, count in counts.items():
        rows = [row for row, of_row in enumerate(labels) if of_row == label]
        assert max(times[row] for row in rows) - min(times[row] for row in rows) <= 1
        assert sum(times[row] for row in rows) == shown[label]
        assert max(times[row] for row in rows) == math.ceil(shown[label] / count)


def test_balanced_orders_differ_between_epochs() -> None:
    """11 images of 3 classes: two classes show a fourth image; of class 0, three or four of seven are shown."""
    labels = torch.tensor([0] * 7 + [1] * 3 + [2])
    orders = torch.stack([balanced_order(labels, seed=2, epoch=epoch) for epoch in range(1500)])
    classes = labels[orders]
    at_place = torch.stack([torch.bincount(classes[:, place], minlength=3) for place in range(11)])
    assert deviations(at_place.double()) < 6, "each class is equally frequent at each place"
    surplus = torch.stack([(classes == label).sum(1) == 4 for label in range(3)])
    assert surplus.sum(0).unique().tolist() == [2]
    assert deviations(surplus.sum(1).double()) < 6, "each class has the additional image equally often"
    shown = torch.bincount(orders.flatten(), minlength=11).double()
    assert deviations(shown[:7]) < 6
    assert deviations(shown[7:10]) < 6
    together = (classes[:, 1:] == classes[:, :-1]).double().mean()
    assert float(together) == pytest.approx(3 * (11 / 3 * (11 / 3 - 1) + 2 / 9) / 110, abs=0.02), "classes are mixed"
    repeated = (classes[1:] == classes[:-1]).double().mean()
    assert float(repeated) == pytest.approx(1 / 3, abs=0.02), "the classes have other places in the next epoch"


@pytest.mark.parametrize(
    ("images", "batch_size", "drop_last", "smallest", "steps"),
    [
        (16, 8, False, 2, 2), (18, 8, False, 2, 3), (17, 8, False, 2, 2), (19, 8, False, 4, 2), (20, 8, False, 4, 3),
        (20, 8, True, 2, 2), (23, 8, True, 2, 2), (24, 8, True, 2, 3), (7, 8, False, 2, 1), (1, 8, False, 2, 0),
        (8, 8, True, 2, 1), (9, 4, False, 1, 3),
    ],
)  # fmt: skip
def test_an_epoch_has_full_batches_and_a_large_enough_last_one(
    images: int, batch_size: int, drop_last: bool, smallest: int, steps: int
) -> None:
    plan = BatchPlan(num_images=images, batch_size=batch_size, drop_last=drop_last, smallest=smallest, seed=0)
    assert plan.steps_per_epoch == steps


@given(
    images=st.integers(2, 80), batch_size=st.integers(2, 20), drop_last=st.booleans(), seed=st.integers(0, 99),
    epoch=st.integers(0, 9), balanced=st.booleans(),
)  # fmt: skip
def test_the_batches_of_an_epoch_divide_its_order(
    images: int, batch_size: int, drop_last: bool, seed: int, epoch: int, balanced: bool
) -> None:
    labels = torch.arange(images) % 3 // 2
    plan = BatchPlan(
        num_images=images, batch_size=batch_size, drop_last=drop_last, smallest=2, seed=seed,
        balanced=labels if balanced else None,
    )  # fmt: skip
    wanted = (
        balanced_order(labels, seed=seed, epoch=epoch) if balanced else epoch_order(images, seed=seed, epoch=epoch)
    ).tolist()
    order = plan.order(epoch)
    assert order.tolist() == wanted
    cut = [plan.rows_of(order, step) for step in range(plan.steps_per_epoch)]
    assert [start for start, _ in cut] == [step * batch_size for step in range(len(cut))]
    shown = [row for _, rows in cut for row in rows.tolist()]
    assert shown == wanted[: len(shown)]
    assert all(len(rows) == batch_size for _, rows in cut[:-1])
    left = images - len(shown)
    assert left < batch_size if drop_last else left < 2


@given(images=st.integers(8, 80), parts=st.integers(1, 4), world=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_parts_of_several_processes_form_the_batch(images: int, parts: int, world: int, seed: int) -> None:
    size = 2 * parts * world
    plans = [
        BatchPlan(num_images=images, batch_size=size, drop_last=True, smallest=2, seed=seed, rank=rank, world=world)
        for rank in range(world)
    ]
    order = epoch_order(images, seed=seed, epoch=1).tolist()
    for step in range(plans[0].steps_per_epoch):
        cut = [plan.rows_of(plan.order(1), step) for plan in plans]
        assert [row for _, rows in cut for row in rows.tolist()] == order[step * size : (step + 1) * size]
        assert [start for start, _ in cut] == [step * size + rank * 2 * parts for rank in range(world)]


def numbered_images(folder: Path, count: int, kind: str) -> Split:
    """A split of images that show their numbers; number n is of class n % 3."""
    paths, labels = write_images(folder, count), torch.arange(count) % 3
    decoder = Decoder(image_size=SIDE, crop_pct=1.0)
    split = FolderSplit(paths, labels, decoder)
    return split if kind == "streamed" else ResidentSplit(split.pixels(range(count)), labels, paths)


def batches_of(split: Split, plan: BatchPlan, warn: list[str]) -> Batches:
    if isinstance(split, FolderSplit):
        return StreamedBatches(split, plan, CPU, workers=0, epochs=9, warn=warn.append, lost=LostImages(warn.append))
    assert isinstance(split, ResidentSplit)
    return ResidentBatches(split, plan, CPU)


def members(batches: Iterator[Batch | None]) -> list[list[tuple[int, int, int, int]]]:
    """Number by pixels, sample number, label and position of each image in each batch."""
    content = []
    for batch in batches:
        assert batch is not None
        numbers = batch.pixels_MHWC[batch.rows_N][:, 0, 0, 0].tolist()
        columns = (batch.sample_ids_N.tolist(), batch.labels_N.tolist(), batch.positions_N.tolist())
        content.append(list(zip(numbers, *columns, strict=True)))
    return content


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("first_step", [0, 2])
def test_each_image_of_a_batch_has_its_own_number_label_and_position(
    tmp_path: Path, kind: str, first_step: int
) -> None:
    plan = BatchPlan(num_images=18, batch_size=4, drop_last=False, smallest=2, seed=7)
    batches = batches_of(numbered_images(tmp_path, 18, kind), plan, [])
    order = epoch_order(18, seed=7, epoch=3).tolist()
    wanted = [(row, row, row % 3, position) for position, row in enumerate(order)]
    cut = [wanted[start : start + 4] for start in range(0, 18, 4)]
    assert members(batches.epoch(3, first_step)) == cut[first_step:]
    second = epoch_order(18, seed=7, epoch=4).tolist()
    assert [entry[0] for batch in members(batches.epoch(4, 0)) for entry in batch] == second
    batches.close()


def test_a_lost_image_does_not_change_number_label_or_position_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    plan = BatchPlan(num_images=18, batch_size=6, drop_last=False, smallest=2, seed=7)
    split, warned = numbered_images(tmp_path, 18, "streamed"), list[str]()
    order = epoch_order(18, seed=7, epoch=0).tolist()
    gone = [order[2], order[7], order[17]]
    assert split.paths is not None
    for row in gone:
        Path(split.paths[row]).unlink()
    wanted = [(row, row, row % 3, position) for position, row in enumerate(order) if row not in gone]
    content = members(batches_of(split, plan, warned).epoch(0, 0))
    assert [entry for batch in content for entry in batch] == wanted
    assert [len(batch) for batch in content] == [5, 5, 5]
    assert [text.partition(":")[0] for text in warned] == [split.paths[row] for row in gone]


@pytest.mark.parametrize(
    ("requested", "lost", "least", "gone"),
    [
        (9, 0, 2, False), (6, 3, 0, False), (3, 3, 0, False), (4, 4, 0, True), (7, 4, 0, True), (8, 4, 0, False),
        (9, 5, 0, True), (10, 5, 2, False), (100, 50, 2, False), (100, 51, 2, True), (3, 1, 2, False), (3, 2, 2, True),
    ],
)  # fmt: skip
def test_the_folder_is_lost_when_too_few_images_of_a_batch_are_left(
    requested: int, lost: int, least: int, gone: bool
) -> None:
    """Three lost images of a small batch are tolerated, and each is reported once."""
    warned: list[str] = []
    images = LostImages(warned.append)
    names = [(f"{number}.png", "no such file") for number in range(lost)]
    if gone:
        with pytest.raises(DataLostError, match=rf"^0\.png: .* \({lost} of {requested} images of a batch\)"):
            images.note(names, requested, least=least)
        assert warned == []
        return
    images.note(names, requested, least=least)
    images.note(names[:1], 9, least=least)
    assert [text.partition(":")[0] for text in warned] == [name for name, _ in names]


def test_batches_of_features_belong_to_the_same_images() -> None:
    plan = BatchPlan(num_images=18, batch_size=4, drop_last=False, smallest=2, seed=7)
    labels = torch.arange(18) % 3
    order = epoch_order(18, seed=7, epoch=3)
    batches = list(feature_batches(plan, labels, CPU).epoch(3, 1))
    assert torch.cat([batch.sample_ids_N for batch in batches]).tolist() == order[4:].tolist()
    assert torch.cat([batch.labels_N for batch in batches]).tolist() == labels[order[4:]].tolist()
    assert torch.cat([batch.positions_N for batch in batches]).tolist() == list(range(4, 18))


@given(count=st.integers(2, 30), parts=st.integers(1, 6))
def test_micro_batches_divide_a_batch_and_partners_are_the_previous_images(count: int, parts: int) -> None:
    numbers = torch.arange(count)
    batch = Batch(torch.zeros(count, 1, 1, 3, dtype=torch.uint8), numbers, numbers + 100, numbers + 200, numbers + 300)
    micro = batch.micro_batches(parts)
    sizes = [len(part) for part in micro]
    assert max(sizes) - min(sizes) <= 1
    for offset, name in ((0, "rows_N"), (100, "sample_ids_N"), (200, "positions_N"), (300, "labels_N")):
        assert torch.equal(torch.cat([getattr(part, name) for part in micro]), numbers + offset)
        before = [(index - 1) % count + offset for index in range(count)]
        assert getattr(batch.shifted_by_one(), name).tolist() == before


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("gone", [(), (3,), (0, 9)])
def test_an_evaluation_uses_every_image_once_in_order_with_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, gone: tuple[int, ...]
) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    split, warned = numbered_images(tmp_path, 10, kind), list[str]()
    assert split.paths is not None
    for row in gone if kind == "streamed" else ():
        Path(split.paths[row]).unlink()
    evaluated: list[tuple[int, int, int]] = []
    for pixels_NHWC, labels_N, rows in evaluation_batches(split, 4, CPU, LostImages(warned.append)):
        evaluated += zip(pixels_NHWC[:, 0, 0, 0].tolist(), labels_N.tolist(), rows, strict=True)
    left = [row for row in range(10) if kind == "resident" or row not in gone]
    assert evaluated == [(row, row % 3, row) for row in left]
    assert len(warned) == 10 - len(left)
