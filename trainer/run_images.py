"""The images that a run held out, found again as the run found them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.check_request import read_run_config
from trainer.data.build import load_held_out
from trainer.data.dataset import ResidentSplit
from trainer.data.image_folder import FolderSplit
from trainer.errors import DataError
from trainer.measured_images import ArrayImages, FileImages, MeasuredImages
from trainer.progress import progress_bar
from trainer.run.store import RunDir


def held_out_images(run_dir: RunDir, split: str | None) -> MeasuredImages:
    """Images of a split of a run's data.

    Args:
        run_dir: The run.
        split: `test`, `val` or `train`; None for `test`, or `val` where there is no test.

    Raises:
        DataError: When they are not there any more, or there is no such split.
    """
    config = read_run_config(run_dir)
    root = Path(config.data.root).expanduser()
    if config.data.kind == "imagefolder" and not root.is_dir():
        raise DataError(f"{root}: the run's images are not there any more; give them with --data DIR")
    # Their pixels are decoded by each model's own decoder.
    streamed = config.model_copy(update={"data": config.data.model_copy(update={"cache": "none"})})
    with progress_bar() as progress:
        data = load_held_out(streamed, progress)
    name = split or ("test" if "test" in data.splits else data.selection_split)
    if name not in data.splits:
        raise DataError(f"{run_dir.path}: the run has no {name} images; it has {', '.join(data.splits)}")
    found = data.splits[name]
    labels_N = found.labels_N.numpy().astype(np.int64)
    if isinstance(found, FolderSplit):
        return FileImages(name, found.paths, labels_N)
    assert isinstance(found, ResidentSplit)
    return ArrayImages(name, found.pixels_NHWC.numpy(), labels_N)
