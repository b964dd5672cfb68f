"""What a GPU does with this program: correctness, speed, memory and accuracy, in two parts of about five minutes each at most.

    python -m benchmarks.gpu_proof CIFAR10 --part a|b [--device cuda] [--rehearsal]

CIFAR10 is the folder that holds `cifar-10-batches-py`, or CIFAR-10 as an image folder (`train/<class>/*.png`, `test/...`). Every
phase is a process of its own with a deadline, and prints as it goes; predictions stand beside the results. `--rehearsal` takes
tiny steps on the embedded digits: for a machine without a GPU, to see that the script works.

Part a: speed by batch size and kind of step, the kernels that take longest, the tests of `tests/gpu`, memory, snapshot and
evaluation. Part b: recipes to the end, a killed run that is resumed, and an export.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_phases import PHASES, RUNS

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Phase:
    """One process: its command, the seconds after which it is ended, and what is predicted."""

    name: str
    command: Sequence[str]
    deadline_s: float
    predicted: str = ""


def main() -> int:
    """Run the phases of a part; the exit code is the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--part", choices=("a", "b"), required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearsal", action="store_true")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        phases = _part_a(given) if given.part == "a" else _part_b(given, Path(folder))
        for phase in phases:
            print(f"\n== {phase.name}{f' (predicted: {phase.predicted})' if phase.predicted else ''}", flush=True)
            failed += _run(phase)
    print(f"\n{failed} phases failed", flush=True)
    return failed


def _run(phase: Phase) -> bool:
    begun = time.perf_counter()
    process = subprocess.Popen(phase.command, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(phase.deadline_s)
        said = "" if code == 0 else f", exit code {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
        process.wait()
        code, said = -1, f", ended at its deadline of {phase.deadline_s:.0f} s"
    print(f"-- {phase.name}: {time.perf_counter() - begun:.1f} s{said}", flush=True)
    return code != 0


def _part_a(given: argparse.Namespace) -> Iterator[Phase]:
    inner = [
        sys.executable,
        "-m",
        "benchmarks.gpu_phases",
        "--device",
        given.device,
        *["--rehearsal"] * given.rehearsal,
    ]
    for name, (deadline_s, predicted) in PHASES.items():
        yield Phase(name, [*inner, name], deadline_s, predicted)
    tests = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "tests/gpu"]
    yield Phase("tests/gpu", tests, 100, "all pass")


def _part_b(given: argparse.Namespace, folder: Path) -> Iterator[Phase]:
    cifar = given.cifar.resolve()
    data = [f"data.root={cifar}"]
    if given.rehearsal:
        data = ["data.kind=digits", "data.image_size=8", "data.progressive=[]", "data.batch_size=128", "train.epochs=3"]
        data += ["model.stem=cifar-maxpool", "data.cutout=0"]
    elif not (cifar / "cifar-10-batches-py").exists():
        data += ["data.kind=imagefolder", "data.crop_pct=1.0"]
    train = [sys.executable, "-m", "benchmarks.gpu_phases", "--device", given.device, "train"]
    for name, (deadline_s, predicted) in RUNS.items():
        config, *settings = name.split()
        settings = [*data, *settings, f"run.name={config}"]
        yield Phase(name, [*train, config, str(folder), *settings], deadline_s, predicted)
    kills = [sys.executable, "-m", "benchmarks.faults", "--kills", "2", "--from-first-step", "digits"]
    exact = [
        "run.deterministic=true", f"run.device={given.device}", "run.precision=fp32", "run.channels_last=true",
        "run.convolution=native", "run.batch_norm=native", "checkpoint.every_s=0.5",
        f"train.epochs={2 if given.rehearsal else 20}",
    ]  # fmt: skip
    yield Phase("kill -9 and exact resume", [*kills, *exact], 90, "no broken promise")
    export = [sys.executable, "-m", "tui.cli", "export", str(folder / next(iter(RUNS)).split()[0])]
    yield Phase("export and its parity", export, 50, "parity holds")


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(main())
