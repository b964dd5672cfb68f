"""Exact resume on a CUDA device after stops and kills."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, ConfigMaker
from tests.support.exact_resume import check_that_stops_change_no_bit
from tests.support.kill_and_resume import kill_and_resume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DETERMINISTIC = ("run.device=cuda", "run.deterministic=true")


@pytest.mark.parametrize("dropout", ["0.0", "0.2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_run_stopped_three_times_ends_bit_for_bit(
    tmp_path: Path, make_config: ConfigMaker, precision: str, dropout: str
) -> None:
    config = make_config(
        *DETERMINISTIC, f"run.precision={precision}", f"model.dropout={dropout}", "data.flip=alternate", "data.cutout=3",
        "data.batch_size=16", "train.epochs=4",
    )  # fmt: skip
    check_that_stops_change_no_bit(config, tmp_path)


def test_killed_gpu_runs_end_bit_for_bit_like_uninterrupted_ones(tmp_path: Path) -> None:
    run = ["digits", *TINY, *DETERMINISTIC, "run.precision=fp32", "train.epochs=60", "checkpoint.every_s=0.5"]
    findings = kill_and_resume(run, tmp_path, kills=3, seed=1, longest_life_s=2, from_first_step=True)
    assert findings.broken == []
