"""Killed trainers and the final states of their resumed runs; `benchmarks.faults` is the long version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, FolderMaker
from tests.pty.program import MODULES
from tests.support.kill_and_resume import kill_and_resume


def test_killed_runs_end_bit_for_bit_like_uninterrupted_ones(
    tmp_path: Path, make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the order of sums could differ
    monkeypatch.setenv("PYTHONPATH", MODULES)
    root = make_folder(per_class=40, splits=("train", "val", "test"))
    run = [
        "digits", *TINY, "run.deterministic=true", "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0",
        "train.epochs=12",
    ]  # fmt: skip
    arguments = [*run, "checkpoint.every_s=0.5"]
    findings = kill_and_resume(arguments, tmp_path / "runs", kills=3, seed=1, longest_life_s=2, from_first_step=True)
    assert findings.broken == []
    assert sum(findings.kills.values()) == 3
    assert findings.runs >= 1
    assert any("half written" in activity for activity in findings.kills), findings.kills
    assert any("after a resume" in activity for activity in findings.kills), findings.kills
    assert not any(word in activity for activity in findings.kills for word in ("loading", "preparing", "before")), (
        findings.kills
    )
