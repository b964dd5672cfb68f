"""Gain or cost of single features of the CPU's training step, with and without each in alternating slices.

    python -m benchmarks.training_speed [--batch-size 64] [--precision fp32] [--way NAME ...] [--beside]
                                        [--pairs 4] [--blocks 3] [--seconds 3]

Nothing else should run on the machine. The data are the digits as 32x32 images, the size of CIFAR-10.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from benchmarks.slices import ENDLESS_DIGITS, Contender, Plan, compare, images_of_log
from tests.support.pseudo_terminal import PseudoTerminal

_TRAIN = "import sys; from trainer.cli import main; sys.exit(main(sys.argv[1:]))"
_WITHOUT_KEPT_MEMORY = (
    "import trainer.host.process_tuning as tuning; assert tuning.keep_freed_memory; tuning.keep_freed_memory = bool; "
    + _TRAIN
)
_SPINNING = "import trainer.host.process_tuning as t; assert t.limit_spinning; t.limit_spinning = bool; " + _TRAIN
_UNGATED = (
    """
import torch
from trainer.training import step

class Ungated:
    def __init__(self, model, optimizer):
        self.optimizer = optimizer
    def begin(self):
        return None
    def step(self, loss, norm):
        self.optimizer.step()
        return torch.zeros(())

assert step.NonFiniteGate and step.nn.utils.get_total_norm
step.NonFiniteGate = Ungated
step.nn.utils.get_total_norm = lambda gradients: torch.zeros(())
"""
    + _TRAIN
)
"""Training without the check for non-finite steps."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--beside", action="store_true", help="with another process that keeps one core busy")
    parser.add_argument("--way", nargs="+", metavar="NAME", help="only these of the printed names")
    Plan.add_arguments(parser, pairs=4, blocks=3, seconds=3.0)
    arguments = parser.parse_args()
    common = [f"data.batch_size={arguments.batch_size}", f"run.precision={arguments.precision}"]
    products, native = [*common, "run.convolution=products"], [*common, "run.convolution=native"]
    ways = {
        "freed memory kept": ((_TRAIN, products), (_WITHOUT_KEPT_MEMORY, products)),
        "convolutions by products": ((_TRAIN, products), (_TRAIN, native)),
        "both": ((_TRAIN, products), (_WITHOUT_KEPT_MEMORY, native)),
        "gate for what is not finite": ((_TRAIN, products), (_UNGATED, products)),
        "waiting threads sleep": ((_TRAIN, products), (_SPINNING, products)),
        "run.deterministic": ((_TRAIN, [*products, "run.deterministic=true"]), (_TRAIN, products)),
    }
    for name in arguments.way or ways:
        with_feature, without = ways[name]
        with _busy_process() if arguments.beside else nullcontext():
            comparison = compare(
                functools.partial(_training, *with_feature),
                functools.partial(_training, *without),
                Plan.from_arguments(arguments),
            )
        print(f"{name:27} {comparison}", flush=True)


@contextmanager
def _busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _training(code: str, settings: list[str]) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, *ENDLESS_DIGITS, *settings, "--runs-dir", folder]
        with PseudoTerminal(command) as terminal:
            yield Contender(terminal, images_of_log(Path(folder) / "digits" / "events.jsonl"))


if __name__ == "__main__":
    main()
