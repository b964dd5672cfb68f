"""`run.compile`: the same training by other kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ConfigMaker
from tests.running import train, view_of


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same(make_config: ConfigMaker, tmp_path: Path) -> None:
    losses = {}
    for how in ("none", "default"):
        config = make_config(
            "data.batch_size=256", "train.epochs=1", f"run.compile={how}", f"run.name={how}", "run.channels_last=true"
        )
        thread = train(config, tmp_path)
        assert thread.exit_code == 0
        losses[how] = list(view_of(thread.run.run_dir).train_loss.y)
    assert losses["default"] == pytest.approx(losses["none"], rel=1e-2)
