"""The short version of `benchmarks.faults`: trainers that are killed, and what their runs end with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, FolderMaker
from tests.support.kill_and_resume import kill_and_resume


def test_killed_runs_end_bit_for_bit_as_those_that_nobody_touched(
    tmp_path: Path, make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # whose sums could come in any order
    root = make_folder(per_class=40, splits=("train", "val", "test"))
    run = [
        "digits", *TINY, "run.deterministic=true", "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0",
        "train.epochs=8",
    ]  # fmt: skip
    arguments = [*run, "checkpoint.every_s=0.5"]
    found = kill_and_resume(arguments, tmp_path / "runs", kills=3, seed=1, longest_life_s=2, from_first_step=True)
    assert found.broken == []
    assert sum(found.kills.values()) == 3
    assert found.runs >= 1
    assert any("half written" in doing for doing in found.kills), found.kills
    assert any("after a resume" in doing for doing in found.kills), found.kills
    assert not any(word in doing for doing in found.kills for word in ("loading", "preparing", "before")), found.kills
