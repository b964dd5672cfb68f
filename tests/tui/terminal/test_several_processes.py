"""The command of `--nproc`, and its error when the processes cannot start."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from tui.terminal.several_processes import start_several, torchrun_command, torchrun_environment


def arguments(runs_dir: Path, **given: object) -> argparse.Namespace:
    return argparse.Namespace(
        **({"config": "digits", "name": None, "resume": None, "nproc": 2, "runs_dir": runs_dir} | given)
    )


def test_torchrun_starts_the_trainer_with_the_given_arguments(tmp_path: Path) -> None:
    command = torchrun_command(arguments(tmp_path, name="try", nproc=3), ["train.epochs=2"])
    launcher, worker = command[: command.index("--no-python")], command[command.index("--no-python") + 1 :]
    assert "torch.distributed.run" in launcher
    assert "--nproc-per-node=3" in launcher
    assert worker[worker.index("trainer.cli") :] == [
        "trainer.cli", "digits", "--name", "try", "train.epochs=2", "--runs-dir", str(tmp_path),
    ]  # fmt: skip
    resumed = torchrun_command(arguments(tmp_path, config=None, resume="latest"), [])
    assert resumed[resumed.index("trainer.cli") :] == ["trainer.cli", "--resume", "latest", "--runs-dir", str(tmp_path)]


def test_processes_share_the_cores_unless_set_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("tui.terminal.several_processes.usable_cpus", lambda: 16)
    assert torchrun_environment(4)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert torchrun_environment(4)["OMP_NUM_THREADS"] == "3"


def test_processes_that_end_before_their_run_begins_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [sys.executable, "-c", "import sys; print('no \\x1b[31mroom'); sys.exit(2)"]
    monkeypatch.setattr("tui.terminal.several_processes.torchrun_command", lambda *_: failing)
    with pytest.raises(ConfigError) as caught:
        start_several(arguments(tmp_path), [])
    assert "the 2 processes ended before there was a run:\nno " in str(caught.value)
    assert "\x1b" not in str(caught.value), "what was printed is shown literally"
