"""TensorBoard, through PyTorch's own writer: `tensorboard --logdir runs`."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from trainer.trackers.tracker import Histogram, RunInfo, Tracker


class TensorBoardTracker(Tracker):
    """Event files in the run directory. Steps that were taken back are purged in a way that TensorBoard recognises."""

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._writer = self._open(info.step)

    def _open(self, step: int) -> SummaryWriter:
        return SummaryWriter(str(self._info.folder), purge_step=step + 1)

    def scalars(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=time)

    def histogram(self, name: str, values: Histogram, *, step: int, time: float) -> None:
        counts, edges = np.array(values.counts, dtype=np.float64), np.array(values.edges)
        middles = (edges[:-1] + edges[1:]) / 2
        self._writer.add_histogram_raw(
            name, min=edges[0], max=edges[-1], num=int(counts.sum()), sum=float(counts @ middles),
            sum_squares=float(counts @ middles**2), bucket_limits=edges[1:].tolist(), bucket_counts=counts.tolist(),
            global_step=step, walltime=time,
        )  # fmt: skip

    def picture(self, name: str, png: bytes, *, step: int, time: float) -> None:
        pixels_HWC = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._writer.add_image(name, pixels_HWC, step, walltime=time, dataformats="HWC")

    def note(self, text: str, *, step: int, time: float) -> None:
        # TensorBoard renders Markdown, so it is marked as literal.
        self._writer.add_text("notes", "    " + text, step, walltime=time)

    def back_to(self, step: int) -> None:
        self._writer.close()
        self._writer = self._open(step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self, results: Mapping[str, float]) -> None:
        if results:  # the run is over: settings and results side by side
            self._writer.add_hparams(self._info.settings, dict(results), run_name=".")
        self._writer.close()


open_tracker = TensorBoardTracker
