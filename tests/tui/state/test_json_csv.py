"""`show --json` and `show --csv`: a run for other programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.support.canned import training_run
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import Steps
from trainer.run.log.run_events import NoteAdded
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.cli import main
from tui.state.json_csv import as_json, write_csv


@pytest.fixture
def view() -> RunView:
    """Three epochs and a step whose loss is NaN."""
    source = training_run()
    source.add(NoteAdded(step=300, text="slower"))
    source.add(Steps(first_step=301, loss=[None], accuracy=[0.5], lr=[0.1], images=64, seconds=0.1))
    view = RunView()
    replay(view, source.read())
    return view


def test_the_json_object_has_the_status_of_the_run(view: RunView) -> None:
    status = json.loads(as_json(view, RunDir(Path("runs/demo"))))
    assert (status["run"], status["step"], status["total_steps"], status["state"]) == ("demo", 301, 1000, "training")
    assert status["train_loss"] is None, "NaN"
    assert [event["epoch"] for event in status["evaluations"]] == [1.0, 2.0, 3.0]
    assert status["best"]["accuracy"] == view.evaluations[-1].accuracy
    assert status["best_by"] == "accuracy"
    assert status["notes"] == [{"step": 300, "text": "slower"}]
    assert status["verdicts"][0]["kind"] == "not finite"
    assert status["started"]["classes"][2] == "ev\x1b[2Jil", "unchanged, since JSON escapes it"


def test_the_csv_table_has_a_row_for_every_step(view: RunView) -> None:
    file = io.StringIO()
    write_csv(view, file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [int(row["step"]) for row in rows] == list(range(1, 302))
    assert float(rows[199]["train_loss"]) == pytest.approx(view.train_loss.y[199])
    assert (rows[199]["epoch"], rows[199]["test_accuracy"]) == ("2.0", str(view.evaluations[1].accuracy))
    assert rows[198]["test_accuracy"] == ""
    assert rows[300]["train_loss"] == "", "NaN"


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_show_prints_json_and_csv(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "demo"
    run.mkdir()
    (run / "events.jsonl").write_bytes(b"".join(training_run().read()))
    assert main(["show", str(run), option]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["step"] == 300 if option == "--json" else len(printed.splitlines()) == 301


def test_json_and_csv_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", "demo", "--json", "--csv"])
    assert "not allowed with" in capsys.readouterr().err
