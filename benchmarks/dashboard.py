"""What the dashboard costs and how quickly it answers, in a real pseudo-terminal while ResNet-18 trains.

    python benchmarks/dashboard.py [--blocks 5] [--seconds 10]

Prints: seconds to the first frame; milliseconds from a key to its answer (median and 95th percentile); bytes a second while
training and while paused; and images a second with the dashboard and without it, in alternating slices, as a ratio. Nothing
else should run on the machine. The limits are those of the project's goals; the exit code is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.pseudo_terminal import PseudoTerminal
from trainer.run.event_log import LogFollower
from trainer.run.events import Steps

CONFIG = [
    "digits",
    "train.epochs=10000",
    "checkpoint.every_s=100000",
    "checkpoint.every_epoch=false",
    "eval.every_epochs=10000",
]
NUMERICS = ["run.precision=fp32", "run.channels_last=true"]
LIMITS = {"first frame s": 0.6, "key p50 ms": 20.0, "key p95 ms": 100.0, "KiB/s training": 10.0, "KiB/s paused": 0.0}
LEAST_RATIO = 0.97


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--blocks", type=int, default=5, help="of four alternating slices with and without the dashboard"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of training in each slice")
    parser.add_argument("--keys", type=int, default=60, help="key presses that are timed")
    arguments = parser.parse_args()
    first_frame()  # compiles modules and fills the file cache
    figures = {"first frame s": statistics.median(first_frame() for _ in range(7))}
    figures |= while_training(arguments.keys)
    met = True
    for name, value in figures.items():
        ok = value <= LIMITS[name] + 1e-9
        met &= ok
        print(f"{name:16} {value:8.2f}   limit {LIMITS[name]:g}   {'ok' if ok else 'MISSED'}")
    found = ratios(arguments.blocks, arguments.seconds)
    ratio = statistics.median(found)
    print(
        f"img/s with the dashboard / without: {ratio:.3f}   blocks {', '.join(f'{r:.3f}' for r in found)}   limit {LEAST_RATIO}"
    )
    return 0 if met and ratio >= LEAST_RATIO else 1


@contextmanager
def program(*arguments: str) -> Iterator[tuple[PseudoTerminal, Path]]:
    """The program on the digits, and its event log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tui.cli", *CONFIG, *NUMERICS, "--runs-dir", folder, *arguments]
        # As an installed program, whose modules pip has compiled; the first start of a checkout compiles them.
        with PseudoTerminal(command, env={"PYTHONDONTWRITEBYTECODE": ""}) as terminal:
            yield terminal, Path(folder) / "digits" / "events.jsonl"


def first_frame() -> float:
    """Seconds from the command to the first frame that names the run and its state."""
    with program() as (terminal, _):
        return terminal.wait_for("loading PyTorch", 20)


def while_training(keys: int) -> dict[str, float]:
    """Answers to keys and bytes on the wire."""
    with program() as (terminal, _):
        terminal.wait_for(r"step [1-9]", 120)
        terminal.bytes_per_s(5)
        training = terminal.bytes_per_s(20) / 1024
        answers = []
        for number in range(keys):
            answers.append(terminal.echo("y", "loss axis log" if number % 2 == 0 else "loss axis linear"))
            terminal.bytes_per_s(0.31)
        terminal.send("p")
        terminal.wait_for("● paused", 30)
        terminal.bytes_per_s(6)
        paused = terminal.bytes_per_s(15) / 1024
    percentile = statistics.quantiles(answers, n=20)
    return {
        "key p50 ms": percentile[9],
        "key p95 ms": percentile[18],
        "KiB/s training": training,
        "KiB/s paused": paused,
    }


def ratios(blocks: int, seconds: float) -> list[float]:
    """Images a second with the dashboard over those without it, a ratio for each block of four slices.

    Both programs train at once, and one of them is stopped (SIGSTOP) while the other runs, in the order A B B A. So both
    meet the same moods of a shared machine, which from minute to minute differ by more than what is measured here. A
    stopped step goes on where it was, so no work is lost at the edge of a slice.
    """
    with program() as (shown, shown_log), program("--headless") as (plain, plain_log):
        for terminal in (shown, plain):
            terminal.wait_for(r"step [1-9]|images", 120)
        contenders = [_Contender(shown, shown_log), _Contender(plain, plain_log)]
        for contender in contenders:
            contender.hold()
        for contender in contenders:
            contender.run(5.0)  # settles allocator and caches
        found = []
        for block in range(blocks):
            with_dashboard, without = [0.0, 0.0], [0.0, 0.0]
            for contender, sums in zip(
                (*contenders, *reversed(contenders)), (with_dashboard, without, without, with_dashboard), strict=True
            ):
                images, spent = contender.run(seconds)
                sums[0] += images
                sums[1] += spent
            rates = with_dashboard[0] / with_dashboard[1], without[0] / without[1]
            found.append(rates[0] / rates[1])
            print(f"  block {block + 1}: {rates[0]:6.1f} / {rates[1]:6.1f} img/s = {found[-1]:.3f}", file=sys.stderr)
        for contender in contenders:
            contender.release()
        return found


class _Contender:
    """A program with all its processes, and what it has trained."""

    def __init__(self, terminal: PseudoTerminal, log: Path) -> None:
        self._terminal = terminal
        self._log = LogFollower(log)
        root = psutil.Process(terminal.pid)
        self._processes = [root, *root.children(recursive=True)]

    def hold(self) -> None:
        """Stop every process."""
        for process in self._processes:
            process.suspend()

    def release(self) -> None:
        """Let every process go on."""
        for process in self._processes:
            process.resume()

    def run(self, seconds: float) -> tuple[int, float]:
        """Go on for some seconds and a little more, up to the end of a group of steps.

        Returns:
            Images trained, and the seconds they took.
        """
        self.release()
        began = time.perf_counter()
        self._new_images()  # what had been trained before it was held and is written now belongs to the last slice
        images = 0
        while True:
            self._terminal.bytes_per_s(0.02)
            came = self._new_images()
            images += came
            spent = time.perf_counter() - began
            if came and spent >= seconds:
                self.hold()
                return images, spent

    def _new_images(self) -> int:
        return sum(record.event.images for record in self._log.records() if isinstance(record.event, Steps))


if __name__ == "__main__":
    sys.exit(main())
