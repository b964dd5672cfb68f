"""Heat over pictures: hot places stand out, with colours and without, and evaluations keep the heat of mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ConfigMaker, FolderMaker
from tests.trainer.evaluation.test_pictures import folder_trainer
from trainer.data.batches.lost_images import LostImages
from trainer.evaluation.evaluate import MAX_MISTAKES, evaluate
from trainer.evaluation.heat import coloured, spotlit
from trainer.evaluation.picture_sheet import Sheet, heat_of, read_sheet, write_sheet
from trainer.evaluation.result_files import _sheet_of
from trainer.model.activation_map import activation_maps
from trainer.model.activation_map import heat_of as heat_of_maps
from trainer.model.numerics import Numerics

CORNER = np.array([[255, 0], [0, 0]], np.uint8)
GREY = np.full((8, 8, 3), 128, np.uint8)


def test_hot_places_are_warm_and_cold_ones_cool() -> None:
    shown = coloured(GREY, CORNER).astype(int)
    hot, cold = shown[0, 0], shown[-1, -1]
    assert hot[0] > hot[2] + 60
    assert cold[2] > cold[0]
    assert shown[0, 0].sum() > shown[-1, -1].sum()
    assert shown.shape == GREY.shape


def test_without_colours_cold_places_are_dark() -> None:
    shown = spotlit(GREY, CORNER)
    assert shown[0, 0].tolist() == [128] * 3
    assert shown[-1, -1].tolist() == [32] * 3
    assert np.array_equal(spotlit(GREY, np.full((3, 3), 255, np.uint8)), GREY)


def test_heat_is_a_share_of_the_largest_evidence_for_the_class() -> None:
    maps = torch.tensor([[[2.0, -5.0], [1.0, 0.5]], [[-1.0, -2.0], [-3.0, torch.nan]]])
    assert heat_of_maps(maps).tolist() == [[[255, 0], [128, 64]], [[0, 0], [0, 0]]]


def test_an_evaluation_keeps_the_heat_of_the_predicted_class(
    make_folder: FolderMaker, make_config: ConfigMaker
) -> None:
    """Computed again, image by image."""
    config = make_config(
        "data.kind=imagefolder", f"data.root={make_folder(size=(40, 40))}", "data.crop_pct=1.0", "data.image_size=32",
        "model.stem=cifar",
    )  # fmt: skip
    trainer = folder_trainer(config)
    model, data = trainer.state.model, trainer.data
    found = evaluate(
        model, data.dataset.splits["test"], normalize=data.normalize, numerics=Numerics(precision="fp32", channels_last=False),
        num_classes=3, batch_size=16, tta=False, device=torch.device("cpu"), poll=lambda _: None,
        lost=LostImages(lambda _: None), explain=True,
    ).mistakes  # fmt: skip
    assert found is not None
    assert 0 < len(found.rows) < MAX_MISTAKES
    assert found.heat_MYX is not None
    for pixels_HWC, predicted, heat_YX in zip(found.pixels_MHWC, found.predicted, found.heat_MYX, strict=True):
        image = data.normalize(pixels_HWC[None]).permute(0, 3, 1, 2)
        evidence = activation_maps(model, image, torch.tensor([predicted]))[1][0]
        expected = 255 * evidence.clamp(min=0) / evidence.max().clamp(min=1e-12)
        assert (heat_YX.float() - expected).abs().max() <= 1.0
    captions = _sheet_of(found, data.dataset.classes, data.dataset.splits["test"], "test").captions
    assert [caption["heat"] for caption in captions] == found.heat_MYX.tolist()


def test_heat_is_read_back_from_a_sheet(tmp_path: Path) -> None:
    write_sheet(tmp_path / "x.png", Sheet(pixels_NHWC=GREY[None], captions=[{"class": "a", "heat": CORNER.tolist()}]))
    (caption,) = read_sheet(tmp_path / "x.png").captions
    heat = heat_of(caption)
    assert heat is not None
    assert np.array_equal(heat, CORNER)
    assert heat_of({}) is None


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (3, 5)])
def test_any_number_of_places_is_enlarged(shape: tuple[int, int]) -> None:
    assert coloured(GREY, np.zeros(shape, np.uint8)).shape == GREY.shape
