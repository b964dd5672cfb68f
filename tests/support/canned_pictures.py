"""Picture sheets of a canned run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.support.canned import CannedSource, training_run
from trainer.evaluation.picture_sheet import Sheet, write_sheet
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import PicturesSaved


def tile(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), colour, dtype=np.uint8)


def with_pictures(run_dir: RunDir, confidence: float = 0.98, **more: object) -> CannedSource:
    """A canned run with sheets of mistakes, with more facts about each if given, and of training images."""
    caption = {
        "class": "[red]cat[/]",
        "predicted": "dog",
        "confidence": confidence,
        "name": "cat/a_\x1b[2Jlong_name_of_a_file.png",
        **more,
    }
    sheet = Sheet(pixels_NHWC=np.stack([tile((255, 0, 0)), tile((0, 0, 255))]), captions=[caption, caption])
    write_sheet(run_dir.mistakes("test"), sheet)
    mixed = {"class": "dog", "name": "image 7", "mixed_with": "airplane", "share": 0.7}
    write_sheet(
        run_dir.training_images, Sheet(pixels_NHWC=tile((0, 255, 0))[None], captions=[mixed], facts={"size": 24})
    )
    source = training_run()
    source.add(
        PicturesSaved(what="mistakes", split="test", step=300, epoch=3.0, path="../../etc/passwd", images=2),
        PicturesSaved(what="training", split="train", step=200, epoch=3.0, path="eval/training.png", images=1),
    )
    return source
