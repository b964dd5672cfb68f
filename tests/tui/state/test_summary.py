"""`show --plain`: a report for any terminal, pager and file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.support.canned import evaluated, opened, training_run
from trainer.host.safe_text import printable
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import decode
from trainer.run.log.run_events import NoteAdded
from trainer.run.view.fold import apply
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.state.summary import plain_report


def test_a_report_draws_the_loss_without_escape_codes() -> None:
    view = RunView()
    for line in training_run().read():
        record = decode(line)
        assert record is not None
        apply(view, record)
    report = plain_report(view, RunDir(Path("runs/demo")))
    assert printable(report, keep="\n") == report, "no control characters"
    assert "┌──" in report
    assert any("\u2800" < char < "\u2900" for char in report), "the curve"


def test_a_report_has_the_notes_and_the_measure_of_the_best() -> None:
    """The best by loss need not have the highest accuracy."""
    source = training_run()
    by_loss = dataclasses.replace(opened(), config={"eval": {"best_by": "loss"}})
    worse = dataclasses.replace(evaluated(3), step=310, accuracy=0.9, loss=9.0, best=False)
    source.add(by_loss, NoteAdded(step=310, text="slower\x1b[2J"), worse)
    view = RunView()
    replay(view, source.read())
    report = plain_report(view, RunDir(Path("runs/demo")))
    assert "best by loss: test accuracy 40.00% (step 300)" in report
    assert "note         step 310: slower?[2J" in report
