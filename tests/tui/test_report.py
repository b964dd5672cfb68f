"""`show --plain`: a report that any terminal, pager and file takes."""

from __future__ import annotations

from pathlib import Path

from tests.tui.canned import training_run
from trainer.run.log_lines import decode
from trainer.run.store import RunDir
from trainer.run.text import literal
from trainer.run.view import RunView
from tui.report import plain_report


def test_a_report_draws_the_loss_without_escape_codes() -> None:
    view = RunView()
    for line in training_run().read():
        record = decode(line)
        assert record is not None
        view.apply(record)
    report = plain_report(view, RunDir(Path("runs/demo")))
    assert literal(report, keep="\n") == report, "nothing that a terminal would obey"
    assert "┌──" in report
    assert any("\u2800" < char < "\u2900" for char in report), "the curve"
