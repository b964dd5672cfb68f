"""Whole runs on the stand-in: from the start to the end, killed and resumed, with two processes, range test and export."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.null_cuda.conftest import ROOT
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.reader import read_records
from trainer.run.log.run_events import Resumed, Warned

SETTINGS = (
    "run.device=cuda", "data.image_size=16", "run.precision=bf16", "run.channels_last=true", "train.ema_decay=0.9",
    "checkpoint.every_s=0.5",
)  # fmt: skip


class StandInRuns:
    """Starts programs on the stand-in in a folder of runs, and reads what they did with the device."""

    def __init__(self, surroundings: dict[str, str], folder: Path) -> None:
        self.runs, self._reports = folder / "runs", folder / "reports"
        self._reports.mkdir()
        path = os.pathsep.join([str(ROOT / "tests/support/null_cuda/site"), str(ROOT)])
        self._surroundings = surroundings | {
            "PYTHONPATH": path, "NULLCUDA_REPORTS": str(self._reports), "NULLCUDA_DEVICES": "2",
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, *arguments]
        return subprocess.Popen(
            command, env=self._surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *arguments: str) -> str:
        """Run a program to its end, which must be good; returns its output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output[-2000:]
        return output

    def log(self) -> list[Event]:
        return [record.event for record in read_records(RunDir(self.runs / "digits").events)]

    def faults(self) -> list[str]:
        """Violations of the rules of capture, and threads left at the end, in any process so far."""
        lines = [line for report in self._reports.iterdir() for line in report.read_text().splitlines()]
        assert any(line.startswith("graphLaunch") for line in lines), "steps were replayed"
        return [line for line in lines if line.startswith(("VIOLATION", "thread"))]


@pytest.fixture
def stand_in_runs(stand_in: dict[str, str], tmp_path: Path) -> StandInRuns:
    return StandInRuns(stand_in, tmp_path)


def kernel_by_kernel(log: list[Event]) -> list[str]:
    return [event.message for event in log if isinstance(event, Warned) and "kernel by kernel" in event.message]


def test_a_run_is_killed_resumed_exported_and_leaves_nothing_behind(stand_in_runs: StandInRuns) -> None:
    long = ("-m", "trainer", "digits", *SETTINGS, "train.epochs=1000", "--runs-dir", str(stand_in_runs.runs))
    killed = stand_in_runs.start(*long)
    checkpoints = stand_in_runs.runs / "digits" / "checkpoints"
    end = time.monotonic() + 60
    while not any(checkpoints.glob("step-*")) and time.monotonic() < end:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = max(int(path.stem.removeprefix("step-")) for path in checkpoints.glob("step-*"))
    output = stand_in_runs.run("-m", "trainer", "--resume", str(checkpoints.parent), f"train.epochs={done // 22 + 3}")
    assert "completed" in output
    log = stand_in_runs.log()
    assert kernel_by_kernel(log) == []
    assert [event.step for event in log if isinstance(event, Resumed)] == [done]
    stand_in_runs.run("-m", "tui.cli", "export", str(checkpoints.parent))
    assert stand_in_runs.faults() == []


def test_two_processes_replay_their_steps(stand_in_runs: StandInRuns) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trainer", "digits")
    stand_in_runs.run(*launcher, *SETTINGS, "train.epochs=2", "--runs-dir", str(stand_in_runs.runs))
    assert kernel_by_kernel(stand_in_runs.log()) == []
    assert stand_in_runs.faults() == []


def test_a_range_test_runs_on_the_device(stand_in_runs: StandInRuns) -> None:
    output = stand_in_runs.run("-m", "tui.cli", "find-lr", "digits", *SETTINGS)
    assert "optim.lr" in output, "a suggestion, or why there is none"
    assert stand_in_runs.faults() == []


def test_a_streamed_folder_is_trained_on(stand_in_runs: StandInRuns, tmp_path: Path) -> None:
    for split, count in (("train", 24), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (20, 20), (number * 5, 90, 200)).save(folder / f"{number}.png")
    data = (
        "data.kind=imagefolder",
        f"data.root={tmp_path / 'pictures'}",
        "data.cache=none",
        "data.workers=1",
        "data.batch_size=8",
    )
    more = (
        "data.drop_last=false",
        "data.mixup=0.2",
        "train.epochs=4",
        "run.name=digits",
        "--runs-dir",
        str(stand_in_runs.runs),
    )
    stand_in_runs.run("-m", "trainer", "digits", *SETTINGS, *data, *more)
    assert kernel_by_kernel(stand_in_runs.log()) == []
    assert stand_in_runs.faults() == []
