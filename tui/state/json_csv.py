"""A run for other programs: `show --json` prints its status, `show --csv` one row per step."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict
from typing import IO

import orjson

from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import escape_invalid_utf8
from trainer.run.status import RunState
from trainer.run.view.run_view import RunView

_NO_STEPS = (RunState.PAUSED, RunState.FINISHED, RunState.FAILED)  # states in which the end time is unknown


def as_json(view: RunView, run_dir: RunDir) -> str:
    """Status of a run as one JSON object; a non-finite number is null."""
    opened, started = view.opened, view.started
    overview = {
        "run": run_dir.name,
        "directory": str(run_dir.path),
        "state": view.state.value,
        "step": view.step,
        "total_steps": view.total_steps,
        "epoch": view.epoch,
        "images_per_s": view.images_per_s,
        "eta_s": view.eta_s if view.state not in _NO_STEPS else None,
        "train_loss": view.train_loss.last,
        "train_accuracy": view.train_accuracy.last,
        "lr": view.lr.last,
        "best": asdict(view.best) if view.best else None,
        "best_by": view.best_by,
        "evaluations": [asdict(event) for event in view.evaluations],
        "epochs": [asdict(event) for event in view.epochs],
        "checkpoints": [asdict(event) for event in view.checkpoints],
        "exported": asdict(view.exported) if view.exported else None,
        "notes": [{"step": mark.step, "text": mark.text} for mark in view.user_notes],
        "verdicts": [asdict(verdict) for verdict in verdicts(view)],
        "failure": asdict(view.failure) if view.failure else None,
        "finish": asdict(view.finish) if view.finish else None,
        "bad_records": view.bad_records,
        "readings": view.readings,
        "config": opened.config if opened else {},
        "started": asdict(started) if started else None,
    }
    return orjson.dumps(escape_invalid_utf8(overview), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def write_csv(view: RunView, file: IO[str]) -> None:
    """Write one row per step, with the evaluations after it; a cell is empty if there is no value, or a non-finite one."""
    splits = sorted({event.split for event in view.evaluations})
    figures = ("loss", "accuracy", "accuracy_tta")
    writer = csv.writer(file, lineterminator="\n")
    measured = [f"{split}_{figure}" for split in splits for figure in figures]
    writer.writerow(["step", "epoch", "train_loss", "train_accuracy", "lr", *measured])
    newest = {(event.step, event.split): event for event in view.evaluations}
    per_epoch = view.steps_per_epoch or 1
    columns = (view.train_loss.x, view.train_loss.y, view.train_accuracy.y, view.lr.y)
    for step, *values in zip(*columns, strict=True):
        found = [newest.get((round(step), split)) for split in splits]
        held_out = [getattr(event, figure, None) for event in found for figure in figures]
        writer.writerow([round(step), round(step / per_epoch, 4), *map(_cell, [*values, *held_out])])


def _cell(value: float | None) -> object:
    return "" if value is None or not math.isfinite(value) else value
