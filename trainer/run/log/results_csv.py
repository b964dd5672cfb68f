"""Writes `results.csv`: one line per epoch, always rebuilt from the events."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from trainer.host.atomic_files import write_atomically
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Record, number
from trainer.run.log.result_events import EpochEnded, Evaluated
from trainer.run.log.run_events import Opened, Resumed
from trainer.run.status import LOST_AFTER_S

COLUMNS = (
    "epoch", "time", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy", "lr",
)  # fmt: skip
"""Always all columns; a cell is empty where nothing was evaluated. Accuracies are fractions."""


class ResultsCsv:
    """An observer of the log that keeps the table up to date, on the log writer's thread."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._elapsed_s = 0.0
        self._newest: float | None = None
        self._rows: dict[int, dict[str, object]] = {}
        self._steps: dict[int, int] = {}

    def replay(self, records: Iterable[Record]) -> None:
        """Load the history of a resumed run, and write the table once."""
        for record in records:
            self._fold(record)
        self._write()

    def observe(self, record: Record) -> None:
        """Fold one record in and write the table if it changed; OSError when it cannot be written."""
        if self._fold(record):
            self._write()

    def _count(self, record: Record) -> None:
        """Add the time since the last record, unless the run was not being trained or the machine's clock has jumped."""
        since = 0.0 if self._newest is None else record.time - self._newest
        self._newest = record.time
        if 0.0 <= since <= LOST_AFTER_S and not isinstance(record.event, Opened):
            self._elapsed_s += since

    def _fold(self, record: Record) -> bool:
        self._count(record)
        event = record.event
        if isinstance(event, EpochEnded):
            row = self._rows.setdefault(event.epoch, {})
            row |= {"epoch": event.epoch, "time": f"{self._elapsed_s:.1f}", "lr": f"{event.lr:.6g}"}
            row |= {"train/loss": _cell(event.train_loss), "train/accuracy": _cell(event.train_accuracy)}
            self._steps[event.epoch] = event.step
            return True
        if isinstance(event, Evaluated) and event.trigger != "key":
            row = self._rows.setdefault(round(event.epoch), {"epoch": round(event.epoch)})
            row |= {f"{event.split}/loss": _cell(event.loss), f"{event.split}/accuracy": _cell(event.accuracy)}
            self._steps.setdefault(round(event.epoch), event.step)
            return True
        if isinstance(event, Resumed):
            self._rows = {epoch: row for epoch, row in self._rows.items() if self._steps[epoch] <= event.step}
            return True
        return False

    def _write(self) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows[epoch] for epoch in sorted(self._rows))
        write_atomically(self._run_dir.results, text.getvalue().encode())


def _cell(value: float | None) -> str:
    return f"{number(value):.6f}"
