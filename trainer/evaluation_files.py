"""What a run keeps to be looked at beside its log: tables and pictures, made and written on a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import torch

from trainer.data.dataset import DataSet, Split
from trainer.evaluate import Evaluation, write_tables
from trainer.mistakes import Mistakes
from trainer.picture_sheet import Sheet, write_sheet
from trainer.run.events import Event, PicturesSaved, Warned
from trainer.run.store import RunDir

_LONGEST_WAIT_S = 10.0


class EvaluationFiles:
    """Writes one thing after the other. Called by the training thread, which waits only in `close`."""

    def __init__(self, run_dir: RunDir, publish: Callable[[Event], object]) -> None:
        self._run_dir = run_dir
        self._publish = publish
        self._newest = threading.Thread()

    def write_tables(self, evaluation: Evaluation, data: DataSet, split: str) -> None:
        """Write `per_class.csv` and `confusion.csv` of a split."""
        folder = self._run_dir.evaluation / split
        self._begin(folder, lambda: write_tables(evaluation, data.classes, folder))

    def write_mistakes(self, mistakes: Mistakes, data: DataSet, split: str, *, step: int, epoch: float) -> None:
        """Write the pictures of the most confident mistakes of a split."""
        path = self._run_dir.mistakes(split)

        def write() -> None:
            write_sheet(path, _sheet_of(mistakes, data.classes, data.splits[split]))
            self._tell("mistakes", split, step, epoch, path, len(mistakes.rows))

        self._begin(path, write)

    def write_training_images(self, make: Callable[[], Sheet], *, step: int, epoch: int) -> None:
        """Write pictures as the network sees them.

        Args:
            make: Makes them; called on the other thread.
            step: Steps done so far.
            epoch: That they belong to, from 1.
        """
        path = self._run_dir.training_images

        def write() -> None:
            sheet = make()
            write_sheet(path, sheet)
            self._tell("training", "train", step, epoch, path, len(sheet.captions))

        self._begin(path, write)

    def close(self) -> None:
        """Wait for what was begun, though not for ever."""
        if self._newest.ident is not None:
            self._newest.join(_LONGEST_WAIT_S)

    def _tell(self, what: str, split: str, step: int, epoch: float, path: Path, images: int) -> None:
        relative = str(path.relative_to(self._run_dir.path))
        self._publish(PicturesSaved(what=what, split=split, step=step, epoch=epoch, path=relative, images=images))

    def _begin(self, place: Path, write: Callable[[], None]) -> None:
        before = self._newest

        def run() -> None:
            if before.ident is not None:
                before.join()  # so that the newest ones are those that stay
            try:
                write()
            except Exception as error:  # noqa: BLE001 - nothing of it is needed to train, or made of what is not in the log
                self._publish(Warned(message=f"{place}: not written: {error}"))

        self._newest = threading.Thread(target=run, name="evaluation files", daemon=True)
        self._newest.start()


def _sheet_of(mistakes: Mistakes, classes: tuple[str, ...], split: Split) -> Sheet:
    captions = [
        {
            "class": classes[label],
            "predicted": classes[predicted],
            "confidence": round(confidence, 4),
            "name": name_of(split, row),
        }
        for label, predicted, confidence, row in zip(
            mistakes.labels, mistakes.predicted, mistakes.confidences, mistakes.rows, strict=True
        )
    ]
    return Sheet(pixels_NHWC=mistakes.pixels_MHWC.to(torch.uint8).numpy(), captions=captions)


def name_of(split: Split, row: int) -> str:
    """By which a person finds an image of a split: folder and file, or its number."""
    paths = split.paths
    return f"image {row}" if paths is None else "/".join(Path(paths[row]).parts[-2:])
