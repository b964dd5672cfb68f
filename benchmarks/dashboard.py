"""Cost and response times of the dashboard in a pseudo-terminal while ResNet-18 trains.

    python -m benchmarks.dashboard [--pairs 6] [--blocks 4] [--seconds 2]

Prints: seconds to the first frame; milliseconds from a key to its response (median and 95th percentile); bytes per second while
training, also with --low-bandwidth, and while paused; and the ratio of images per second with the dashboard to those without it,
in alternating slices. Nothing else should run on the machine. Exits with 1 when one of the project's goals is missed.

While the ratio is measured, the terminal is not emulated: usually it runs on another machine.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.slices import ENDLESS_DIGITS, Contender, Plan, compare, images_of_log
from tests.support.pseudo_terminal import PseudoTerminal

LIMITS = {
    "first frame s": 0.4, "key p50 ms": 20.0, "key p95 ms": 50.0, "KiB/s training": 4.0, "KiB/s low": 1.0, "KiB/s paused": 0.0,
}  # fmt: skip
LEAST_RATIO = 0.97


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Plan.add_arguments(parser, pairs=6, blocks=4, seconds=2.0)
    parser.add_argument("--keys", type=int, default=60, help="key presses that are timed")
    arguments = parser.parse_args()
    first_frame()  # compiles modules and fills the file cache
    figures = {"first frame s": statistics.median(first_frame() for _ in range(7))}
    figures |= while_training(arguments.keys)
    with program("--low-bandwidth") as (terminal, _):
        terminal.wait_for(r"step [1-9]", 120)
        terminal.bytes_per_s(5)
        figures["KiB/s low"] = terminal.bytes_per_s(20) / 1024
    met = True
    for name, value in figures.items():
        ok = value <= LIMITS[name] + 1e-9
        met &= ok
        print(f"{name:16} {value:8.2f}   limit {LIMITS[name]:g}   {'ok' if ok else 'MISSED'}")
    comparison = compare(training, functools.partial(training, "--headless"), Plan.from_arguments(arguments))
    print(f"img/s with the dashboard / without: {comparison}   limit {LEAST_RATIO}")
    return 0 if met and comparison.ratio >= LEAST_RATIO else 1


@contextmanager
def program(*arguments: str) -> Iterator[tuple[PseudoTerminal, Path]]:
    """Run the program on the digits; yields the terminal and the event log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "tui.cli",
            *ENDLESS_DIGITS,
            "run.convolution=products",
            "--runs-dir",
            folder,
            *arguments,
        ]
        # pip compiles the modules of an installed program; in a checkout the first start does.
        with PseudoTerminal(command, env={"PYTHONDONTWRITEBYTECODE": ""}) as terminal:
            yield terminal, Path(folder) / "digits" / "events.jsonl"


@contextmanager
def training(*arguments: str) -> Iterator[Contender]:
    """Run the program as one side of a comparison."""
    with program(*arguments) as (terminal, log):
        yield Contender(terminal, images_of_log(log))


def first_frame() -> float:
    """Seconds from the command to the first frame that names the run and its state."""
    with program() as (terminal, _):
        return terminal.wait_for("loading PyTorch", 20)


def while_training(keys: int) -> dict[str, float]:
    """Response times of keys, and bytes per second while training and paused."""
    with program() as (terminal, _):
        terminal.wait_for(r"step [1-9]", 120)
        terminal.bytes_per_s(5)
        training = terminal.bytes_per_s(20) / 1024
        waits = []
        for number in range(keys):
            waits.append(terminal.echo("y", "loss axis log" if number % 2 == 0 else "loss axis linear"))
            terminal.bytes_per_s(0.31)
        terminal.send("p")
        terminal.wait_for("● paused", 30)
        terminal.bytes_per_s(6)
        paused = terminal.bytes_per_s(15) / 1024
    percentile = statistics.quantiles(waits, n=20)
    return {
        "key p50 ms": percentile[9],
        "key p95 ms": percentile[18],
        "KiB/s training": training,
        "KiB/s paused": paused,
    }


if __name__ == "__main__":
    sys.exit(main())
