"""`trainer.evaluation.evaluate` compared with the plain evaluation, for random networks, images and batches."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from tests.reference.evaluation_networks import BlackDetector, LookUp, TinyResNet
from tests.reference.evaluation_plain import PlainEvaluation, plain_evaluation, plain_silence, scaled
from trainer.data import image_folder
from trainer.data.augment.augment import Normalize
from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import ResidentSplit, Split
from trainer.data.folder.decoder import Decoder
from trainer.data.image_folder import FolderSplit
from trainer.errors import DataLostError
from trainer.evaluation import evaluate as evaluate_module
from trainer.evaluation.evaluate import Evaluation, evaluate, write_tables
from trainer.model.numerics import Numerics

CPU = torch.device("cpu")
MEAN, STD = [0.2, 0.5, 0.7], [0.3, 0.2, 0.4]
UNNORMALIZED = ([0.0] * 3, [1 / 255] * 3)  # mean and standard deviation that leave pixels unchanged


def evaluated(
    model: nn.Module, split: Split, *, num_classes: int, batch_size: int, tta: bool = True, channels_last: bool = False,
    scale: tuple[list[float], list[float]] = (MEAN, STD), lost: LostImages | None = None,
) -> Evaluation:  # fmt: skip
    """The program's evaluation in fp32 on the CPU."""
    return evaluate(
        model, split, normalize=Normalize.of(*scale, CPU), numerics=Numerics(precision="fp32", channels_last=channels_last),
        num_classes=num_classes, batch_size=batch_size, tta=tta, device=CPU, poll=lambda _share: None,
        lost=lost or LostImages(pytest.fail),
    )  # fmt: skip


def random_pixels(number: int, height: int, width: int, seed: int) -> Tensor:
    """Noise that is brighter towards the right and the bottom, so that mirror images differ."""
    noise_NHWC = torch.randint(0, 128, (number, height, width, 3), generator=torch.Generator().manual_seed(seed))
    ramp_HW = torch.arange(height)[:, None] * (50 // height) + torch.arange(width) * (77 // width)
    return (noise_NHWC + ramp_HW[None, :, :, None]).to(torch.uint8)


def assert_agrees(evaluation: Evaluation, wanted: PlainEvaluation, pixels_NHWC: Tensor, rows: Sequence[int]) -> None:
    """Compare an evaluation of some rows of a split with the plain one of these images."""
    # fp32 rounding over about ten layers: relative for the logits, absolute for a loss near 0.
    assert evaluation.loss == pytest.approx(wanted.loss, rel=2e-5, abs=2e-6)
    assert evaluation.accuracy == pytest.approx(wanted.accuracy)
    assert evaluation.accuracy_tta == pytest.approx(wanted.accuracy_tta)
    assert evaluation.confusion_KK.tolist() == wanted.confusion
    assert evaluation.counts == [sum(row) for row in wanted.confusion]
    assert evaluation.predicted == [sum(column) for column in zip(*wanted.confusion, strict=True)]
    assert evaluation.correct == [row[label] for label, row in enumerate(wanted.confusion)]
    mistakes = evaluation.mistakes
    assert (mistakes is None) == (not wanted.mistakes)
    if mistakes is not None:
        expected = {rows[row]: (label, answer, confidence) for row, label, answer, confidence in wanted.mistakes}
        kept = zip(mistakes.rows, mistakes.labels, mistakes.predicted, mistakes.confidences, strict=True)
        for row, label, answer, confidence in kept:
            assert expected[row][:2] == (label, answer)
            assert expected[row][2] == pytest.approx(confidence, rel=1e-4)
        most_confident = [confidence for *_, confidence in wanted.mistakes][:32]
        assert mistakes.confidences == pytest.approx(most_confident, rel=1e-4)
        assert len(set(mistakes.rows)) == len(most_confident)
        assert torch.equal(mistakes.pixels_MHWC, pixels_NHWC[mistakes.rows])


@settings(max_examples=50, deadline=None)
@given(
    number=st.integers(1, 14), batch_size=st.integers(1, 9), num_classes=st.integers(2, 6), height=st.integers(4, 9),
    width=st.integers(4, 9), seed=st.integers(0, 10**6), silent=st.sampled_from([0.0, 0.4]), padded=st.booleans(),
    channels_last=st.booleans(),
)  # fmt: skip
def test_all_results_equal_those_of_the_plain_evaluation(
    number: int, batch_size: int, num_classes: int, height: int, width: int, seed: int, silent: float, padded: bool,
    channels_last: bool,
) -> None:  # fmt: skip
    model = TinyResNet(num_classes, seed, silent)
    pixels_NHWC = random_pixels(number, height, width, seed)
    labels = torch.randint(0, num_classes, (number,), generator=torch.Generator().manual_seed(seed)).tolist()
    wanted = plain_evaluation(model, pixels_NHWC, labels, MEAN, STD, num_classes)
    assume(wanted.margin > 1e-4)  # below this, rounding may decide
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "_PAD_LAST_BATCH_ON", ("cpu",) if padded else ())
        evaluation = evaluated(
            model, ResidentSplit(pixels_NHWC, torch.tensor(labels)),
            num_classes=num_classes, batch_size=batch_size, channels_last=channels_last,
        )  # fmt: skip
    assert_agrees(evaluation, wanted, pixels_NHWC, range(number))
    images_NCHW = torch.cat([scaled(pixels_HWC, MEAN, STD) for pixels_HWC in pixels_NHWC])
    silence = plain_silence(model, images_NCHW)
    assert evaluation.silent == pytest.approx(silence, abs=1e-4)


def test_the_most_confident_of_many_mistakes_are_kept() -> None:
    model = TinyResNet(4, 3)
    pixels_NHWC = random_pixels(90, 5, 6, 3)
    labels = [row % 4 for row in range(90)]
    evaluation = evaluated(model, ResidentSplit(pixels_NHWC, torch.tensor(labels)), num_classes=4, batch_size=25)
    assert evaluation.mistakes is not None
    assert len(evaluation.mistakes.rows) == 32 < 90 - sum(evaluation.correct)
    wanted = plain_evaluation(model, pixels_NHWC, labels, MEAN, STD, 4)
    assert_agrees(evaluation, wanted, pixels_NHWC, range(90))


@pytest.mark.parametrize("broken", [(), (0,), (3,), (8,), (1, 2), (0, 5, 8), (4, 5, 6, 7)])
@pytest.mark.parametrize("batch_size", [4, 9])
def test_lost_images_do_not_affect_the_results_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[int, ...], batch_size: int
) -> None:
    monkeypatch.setattr(image_folder, "_RETRY_DELAY_S", 0.0)
    pixels_NHWC = random_pixels(9, 6, 6, 1)
    labels = [0, 1, 2, 2, 1, 0, 0, 2, 1]
    paths = [str(tmp_path / f"{row}.png") for row in range(9)]
    for row, path in enumerate(paths):
        Image.fromarray(pixels_NHWC[row].numpy()).save(path)
    for row in broken:
        Path(paths[row]).write_bytes(b"no picture")
    model = TinyResNet(3, 1)
    split = FolderSplit(paths, torch.tensor(labels), Decoder(image_size=6, crop_pct=1.0))
    warned: list[str] = []
    lost = LostImages(warned.append)
    if broken == (4, 5, 6, 7) and batch_size == 4:
        with pytest.raises(DataLostError, match=r"4\.png: was readable at the start and no longer is: .*4 of 4 images"):
            evaluated(model, split, num_classes=3, batch_size=batch_size, lost=lost)
        return
    evaluation = evaluated(model, split, num_classes=3, batch_size=batch_size, lost=lost)
    left = [row for row in range(9) if row not in broken]
    wanted = plain_evaluation(model, pixels_NHWC[left], [labels[row] for row in left], MEAN, STD, 3)
    assert_agrees(evaluation, wanted, pixels_NHWC, left)
    assert [text.partition(":")[0] for text in warned] == [paths[row] for row in broken]


def test_padding_images_of_the_last_batch_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "_PAD_LAST_BATCH_ON", ("cpu",))
    split = ResidentSplit(random_pixels(5, 4, 4, 0), torch.ones(5, dtype=torch.int64))
    evaluation = evaluated(BlackDetector(), split, num_classes=2, batch_size=3)
    assert evaluation.silent == {"conv1": 1.0}
    assert evaluation.counts == [0, 5]
    assert evaluation.mistakes is not None
    assert sorted(evaluation.mistakes.rows) == [0, 1, 2, 3, 4]
    assert evaluation.loss == pytest.approx(math.log(2))


def test_a_non_finite_answer_is_wrong_but_not_a_confident_mistake() -> None:
    table_MK = torch.tensor([[3.0, 0, 0], [0, math.nan, 0], [0, 0, math.inf], [0, 5, 0], [1, 0, 0], [9, 0, -math.inf]])
    answers, labels = [0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 2, 0]
    evaluation = evaluated(
        LookUp(table_MK),
        split_of_numbers(answers, answers, labels),
        num_classes=3,
        batch_size=4,
        tta=False,
        scale=UNNORMALIZED,
    )
    assert evaluation.accuracy == 1 / 6, (
        "rows 1, 2 and 5 are wrong, although no logit is larger than that of the right class"
    )
    assert evaluation.accuracy_tta is None
    assert evaluation.correct == [1, 0, 0]
    assert not math.isfinite(evaluation.loss)
    assert evaluation.mistakes is not None
    assert evaluation.mistakes.rows[:2] == [3, 4]
    assert evaluation.mistakes.predicted[:2] == [1, 0]
    assert evaluation.mistakes.confidences[0] == pytest.approx(math.exp(5) / (math.exp(5) + 2))


def test_tables_and_confusions_of_many_classes_agree_with_the_images(tmp_path: Path) -> None:
    """The first of 14 classes is confused with all others, with decreasing counts; ten of them are reported."""
    labels = [0] * sum(range(1, 14)) + [5]
    answers = [label for label in range(1, 14) for _ in range(14 - label)] + [2]
    split = split_of_numbers(answers, answers, labels)
    evaluation = evaluated(LookUp(torch.eye(14)), split, num_classes=14, batch_size=30, tta=False, scale=UNNORMALIZED)
    assert evaluation.confusions[0] == [number for label in range(1, 11) for number in (label, 14 - label)]
    assert evaluation.confusions[5] == [2, 1]
    assert all(not pairs for label, pairs in enumerate(evaluation.confusions) if label not in (0, 5))
    names = tuple("abcdefghijklmn")
    write_tables(evaluation, names, tmp_path / "test")
    with (tmp_path / "test" / "confusion.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0][1:] == list(names)
    pairs = list(zip(labels, answers, strict=True))
    for label, (name, *row) in enumerate(lines[1:]):
        assert name == names[label]
        assert [int(count) for count in row] == [pairs.count((label, answer)) for answer in range(14)]
    with (tmp_path / "test" / "per_class.csv").open(newline="") as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    columns = ("images", "accuracy", "most_confused_with")
    assert [classes["a"][column] for column in columns] == ["91", "0.000000", "b"]
    assert (classes["f"]["images"], classes["f"]["most_confused_with"]) == ("1", "c")
    assert (classes["b"]["images"], classes["b"]["accuracy"], classes["b"]["precision"]) == ("0", "", "0.000000")


def test_tta_averages_the_logits_of_image_and_mirror_image() -> None:
    """Images whose left edge encodes one row of the table and whose right edge another one."""
    table_MK = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [-9.0, 9.0]])
    left, right, labels = [0, 0, 0, 1], [0, 1, 2, 1], [0, 0, 1, 1]
    split = split_of_numbers(left, right, labels, below=3)
    evaluation = evaluated(LookUp(table_MK), split, num_classes=2, batch_size=3, scale=UNNORMALIZED)
    assert evaluation.accuracy == 3 / 4, "the left edge alone: rows 0, 0, 0 and 1 of the table"
    assert evaluation.accuracy_tta == 1.0, "sums: (4, 0), (2, 1), (2, 3) and (0, 2)"


def split_of_numbers(left: Sequence[int], right: Sequence[int], labels: Sequence[int], below: int = 0) -> ResidentSplit:
    """Images with a number in each of the upper corners and another one everywhere else."""
    pixels_NHWC = np.full((len(labels), 4, 6, 3), below, np.uint8)
    pixels_NHWC[:, 0, 0], pixels_NHWC[:, 0, -1] = np.array(left)[:, None], np.array(right)[:, None]
    return ResidentSplit(torch.from_numpy(pixels_NHWC), torch.tensor(labels))


@pytest.mark.parametrize("tta", [False, True])
def test_each_batch_reports_the_evaluated_share(tta: bool) -> None:
    shares: list[float] = []
    settings: dict[str, Any] = {
        "normalize": Normalize.of(MEAN, STD, CPU), "numerics": Numerics(precision="fp32", channels_last=False),
        "num_classes": 3, "device": CPU, "lost": LostImages(pytest.fail), "tta": tta,
    }  # fmt: skip
    split = ResidentSplit(random_pixels(7, 4, 4, 0), torch.zeros(7, dtype=torch.int64))
    evaluate(TinyResNet(3, 0), split, batch_size=3, poll=shares.append, **settings)
    assert shares == pytest.approx([0, 3 / 7, 6 / 7])
