"""Tables and pictures that a run keeps beside its log, made and written on a separate thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trainer.data.dataset import DataSet, Split
from trainer.evaluation.evaluate import Evaluation, Mistakes, write_tables
from trainer.evaluation.picture_sheet import Sheet, write_sheet
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.result_events import PicturesSaved
from trainer.run.log.run_events import Warned

_LONGEST_WAIT_S = 10.0


class EvaluationFiles:
    """Writes files one after the other, only the newest of those waiting for a path; training never waits."""

    def __init__(self, run_dir: RunDir, publish: Callable[[Event], object]) -> None:
        self._run_dir = run_dir
        self._publish = publish
        self._changed = threading.Condition()
        self._waiting: dict[Path, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._last_warnings: dict[Path, str] = {}

    def write_tables(self, evaluation: Evaluation, data: DataSet, split: str) -> None:
        """Write `per_class.csv` and `confusion.csv` of a split."""
        folder = self._run_dir.evaluation / split
        self._enqueue(folder, lambda: write_tables(evaluation, data.classes, folder))

    def write_mistakes(self, mistakes: Mistakes | None, data: DataSet, split: str, *, step: int, epoch: float) -> None:
        """Write the pictures of a split's most confident mistakes; None deletes the earlier ones."""
        path = self._run_dir.mistakes(split)

        def write() -> None:
            if mistakes is None:
                path.unlink(missing_ok=True)
            else:
                write_sheet(path, _at(step, _sheet_of(mistakes, data.classes, data.splits[split], split)))
            self._publish_saved("mistakes", split, step, epoch, path, 0 if mistakes is None else len(mistakes.rows))

        self._enqueue(path, write)

    def write_training_images(self, make: Callable[[], Sheet], *, step: int, epoch: int) -> None:
        """Write training images as the network sees them; `make` runs on the writer's thread, `epoch` counts from 1."""
        path = self._run_dir.training_images

        def write() -> None:
            sheet = _at(step, make())
            write_sheet(path, sheet)
            self._publish_saved("training", "train", step, epoch, path, len(sheet.captions))

        self._enqueue(path, write)

    def close(self) -> None:
        """Wait for pending files, up to a time limit."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_LONGEST_WAIT_S)

    def _publish_saved(self, what: str, split: str, step: int, epoch: float, path: Path, images: int) -> None:
        relative = str(path.relative_to(self._run_dir.path))
        self._publish(PicturesSaved(what=what, split=split, step=step, epoch=epoch, path=relative, images=images))

    def _enqueue(self, place: Path, write: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.pop(place, None)
            self._waiting[place] = write
            self._changed.notify()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="evaluation files", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no resources for another thread: training does not need these files
                self._warn_once(place, error)
            else:
                self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                place = next(iter(self._waiting))
                write = self._waiting.pop(place)
            try:
                write()
            except Exception as error:  # noqa: BLE001 - training does not need these files, and all that they show is in the log
                self._warn_once(place, error)

    def _warn_once(self, place: Path, error: Exception) -> None:
        """Publish why a file is missing, once for each path and reason."""
        text = f"{place}: not written: {error}"
        if self._last_warnings.get(place) != text:
            self._last_warnings[place] = text
            self._publish(Warned(message=text))


def _at(step: int, sheet: Sheet) -> Sheet:
    """Add the step to the facts of pictures: the file is overwritten at a later step."""
    return replace(sheet, facts=sheet.facts | {"step": step})


def _sheet_of(mistakes: Mistakes, classes: tuple[str, ...], images: Split, split: str) -> Sheet:
    captions: list[dict[str, Any]] = [
        {
            "class": classes[label],
            "predicted": classes[predicted],
            "confidence": round(confidence, 4),
            "name": name_of(images, row, split),
        }
        for label, predicted, confidence, row in zip(
            mistakes.labels, mistakes.predicted, mistakes.confidences, mistakes.rows, strict=True
        )
    ]
    if mistakes.heat_MYX is not None:
        for caption, heat_YX in zip(captions, mistakes.heat_MYX.tolist(), strict=True):
            caption["heat"] = heat_YX
    return Sheet(pixels_NHWC=mistakes.pixels_MHWC.to(torch.uint8).numpy(), captions=captions)


def name_of(images: Split, row: int, split: str) -> str:
    """Name by which a person finds an image: folder and file, or its number in a split."""
    paths = images.paths
    return f"{split} image {row}" if paths is None else "/".join(Path(paths[row]).parts[-2:])
