"""A row of the list of runs, for the screen and for print. Pure."""

from __future__ import annotations

from rich.cells import cell_len

from trainer.run.diagnosis.resource_rules import lines_missing
from trainer.run.status import RunState
from trainer.run.view.overview import RunOverview
from tui.drawing import format as fmt

HEADINGS = {
    "mark": "", "name": "run", "status": "state", "epochs": "epoch", "best": "best %", "last": "last %", "age": "last event",
    "size": "size",
}  # fmt: skip

WIDTHS = {
    "wide": {"mark": 1, "name": 34, "status": 16, "epochs": 9, "best": 6, "last": 6, "age": 10, "size": 8},
    "medium": {"mark": 1, "name": 14, "status": 11, "epochs": 7, "best": 6, "last": 6, "age": 10, "size": 7},
    "small": {"mark": 1, "name": 14, "status": 10, "best": 6},
    "tiny": {"name": 14, "status": 10},
}
"""Columns of each layout and their widths in cells; there is a blank on either side of a cell."""

_STYLES = {RunState.FAILED: "bad", RunState.LOST: "bad", RunState.FINISHED: "dim"}


def texts(run: RunOverview, now: float) -> dict[str, str]:
    """Texts of a run, by column, all but the mark. A `!` means that lines of its log were skipped."""
    return {
        "name": fmt.printable(run.run_dir.name),
        "status": f"{run.status} !" if run.bad_records else run.status,
        "epochs": f"{run.epoch}/{run.epochs}" if run.epochs else "",
        "best": fmt.percent(run.best, 2) if run.best is not None else "",
        "last": fmt.percent(run.last, 2) if run.last is not None else "",
        "age": age(now - run.last_time) if run.last_time else "",
        "size": size(run),
    }


def cells(run: RunOverview, now: float, *, mark: tuple[str, str], here: bool) -> dict[str, tuple[str, str]]:
    """Text and style of a run's cells, by column; `mark` is its number in the comparison and the style of its curves."""
    state = _STYLES.get(run.state, "good" if run.is_training else "text")
    styles = {"name": "title" if here else "text", "status": state}
    return {"mark": mark, **{column: (text, styles.get(column, "text")) for column, text in texts(run, now).items()}}


def cell(column: str, text: str, width: int) -> str:
    """A cell with a blank on either side; text is aligned left, figures right."""
    blanks = " " * (width - cell_len(text))
    shown = f"{blanks}{text}" if blanks and column not in ("mark", "name", "status") else fmt.fit(text, width)
    return f" {shown} "


def age(seconds: float) -> str:
    """Elapsed time, rounded to parts that matter at that age: thousands of rows must not change every second."""
    if seconds < 120:
        return f"{max(seconds, 0.0):.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes < 24 * 60 else f"{minutes // (24 * 60)} d"


def plain_list(runs: list[RunOverview], now: float) -> str:
    """The list as text with aligned columns."""
    columns = [column for column in HEADINGS if column != "mark"]
    lines = [HEADINGS, *(texts(run, now) for run in runs)]
    rows = [[line[column] for column in columns] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    incomplete = [run for run in runs if run.bad_records]
    left_out = [f"{fmt.printable(run.run_dir.name)}: {lines_missing(run.bad_records)}" for run in incomplete]
    return "\n".join([*shown, *left_out])


def size(run: RunOverview) -> str:
    """Disk usage of a run: `358 MB`."""
    size_bytes = run.size_bytes
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 9.95e6 else f"{size_bytes / 1e6:,.0f} MB"
