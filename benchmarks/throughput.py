"""Training images per second, end to end on real images, compared with `benchmarks.baselines` in alternating slices.

    python -m benchmarks.throughput CIFAR10_FOLDER [--against tutorial lightning-fp32 lightning-bf16] [--pairs 4] [--blocks 2]
                                    [--precision fp32]

CIFAR10_FOLDER holds CIFAR-10 as `train/<class>/*.png` and `test/<class>/*.png`. The program trains with its dashboard and chooses
precision and memory format itself. All have the same network (max-pool stem), batch size and augmentation (flip, shift by 4).
Lightning comes with the extra `benchmark`. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.slices import Contender, Plan, compare, images_of_lines, images_of_log
from tests.support.pseudo_terminal import PseudoTerminal
from trainer.training.step_timing import matrix_peak

BASELINES = {
    "tutorial": ("tutorial",),
    "lightning-fp32": ("lightning", "--precision", "32-true"),
    "lightning-bf16": ("lightning", "--precision", "bf16-mixed"),
}

_TRAIN_GFLOP = 0.838
"""Per image of 32x32 with the max-pool stem, two FLOP per multiply-add: forward, and twice that backward except for the stem."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--against", nargs="+", choices=tuple(BASELINES), default=list(BASELINES))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the program")
    parser.add_argument("--workers", type=int, default=2, help="of the baselines' loader")
    Plan.add_arguments(parser, pairs=4, blocks=2, seconds=8.0)
    arguments = parser.parse_args()
    cifar, batch = arguments.cifar.resolve(), arguments.batch_size
    peaks = {precision: matrix_peak(torch.device("cpu"), precision) for precision in ("fp32", "bf16")}
    print(
        "matrix peak: " + ", ".join(f"{peak:.0f} GFLOP/s in {precision}" for precision, peak in peaks.items()),
        flush=True,
    )
    for name in arguments.against:
        baseline = functools.partial(_baseline, BASELINES[name], cifar, batch, arguments.workers)
        comparison = compare(
            functools.partial(_ours, cifar, batch, arguments.precision), baseline, Plan.from_arguments(arguments)
        )
        achieved = comparison.first * _TRAIN_GFLOP
        shares = ", ".join(f"{achieved / peak:.0%} of {precision}" for precision, peak in peaks.items())
        print(f"r18-tui / {name}: {comparison}; ours {achieved:.0f} GFLOP/s: {shares}", flush=True)


@contextmanager
def _ours(cifar: Path, batch_size: int, precision: str) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            "data.kind=imagefolder", f"data.root={cifar}", "data.crop_pct=1.0", f"data.batch_size={batch_size}",
            "train.epochs=10000", "checkpoint.every_s=100000", "checkpoint.every_epoch=false", "eval.every_epochs=10000",
            f"run.precision={precision}",
        ]  # fmt: skip
        command = [sys.executable, "-m", "tui.cli", "cifar-cpu-quick", "--runs-dir", folder, *settings]
        with PseudoTerminal(command) as terminal:
            yield Contender(terminal, images_of_log(Path(folder) / "cifar-cpu-quick" / "events.jsonl"))


@contextmanager
def _baseline(arguments: tuple[str, ...], cifar: Path, batch_size: int, workers: int) -> Iterator[Contender]:
    loop, *options = arguments
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "images.txt"
        command = [
            sys.executable, "-m", "benchmarks.baselines", loop, str(cifar), str(log), *options,
            "--batch-size", str(batch_size), "--workers", str(workers),
        ]  # fmt: skip
        with PseudoTerminal(command) as terminal:
            yield Contender(terminal, images_of_lines(log))


if __name__ == "__main__":
    main()
