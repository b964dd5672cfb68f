"""Two training programs compared in alternating slices of a few seconds.

Both train at once, and one of them is stopped (SIGSTOP) while the other runs, in the orders A B B A and B A A B by turns. So
both meet the same moods of a shared machine, which from minute to minute differ by more than what is measured here. A stopped
step goes on where it was, so no work is lost at the edge of a slice.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.pseudo_terminal import PseudoTerminal
from trainer.run.event_log import LogFollower
from trainer.run.events import Steps

ENDLESS_DIGITS = (
    "digits", "train.epochs=10000", "checkpoint.every_s=100000", "checkpoint.every_epoch=false",
    "eval.every_epochs=10000", "run.precision=fp32", "run.channels_last=true",
)  # fmt: skip
"""Arguments of a run that only trains, without timing anything first; `run.weight_gradient` is still to be set."""

_SETTLE_S = 5.0
_START_S = 180.0


@dataclass(frozen=True)
class Comparison:
    """Images a second of two programs, a pair for each block of four slices."""

    blocks: list[tuple[float, float]]

    @property
    def ratio(self) -> float:
        """Of the first's mean rate to the second's."""
        return float(statistics.mean(a for a, _ in self.blocks) / statistics.mean(b for _, b in self.blocks))

    @property
    def error(self) -> float:
        """Standard error of the ratio, from the scatter of the blocks."""
        return float(statistics.stdev(a / b for a, b in self.blocks)) / math.sqrt(len(self.blocks))

    def __str__(self) -> str:
        first, second = (statistics.mean(block[i] for block in self.blocks) for i in (0, 1))
        return f"{self.ratio:.3f} +- {self.error:.3f} ({first:.1f} / {second:.1f} img/s, {len(self.blocks)} blocks)"


class Contender:
    """A program with all its processes, and what it has trained."""

    def __init__(self, terminal: PseudoTerminal, log: Path) -> None:
        """Wait until it trains, and stop it."""
        self._terminal = terminal
        self._log = LogFollower(log)
        end = time.monotonic() + _START_S
        while not self._new_images():
            terminal.pump(0.2)
            if time.monotonic() > end or not terminal.alive():
                raise TimeoutError(f"no step within {_START_S:g} s; the screen:\n{terminal.text}")
        root = psutil.Process(terminal.pid)
        self._processes = [root, *root.children(recursive=True)]
        self.hold()

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
            self._terminal.drain(0.05)
            came = self._new_images()
            images += came
            spent = time.perf_counter() - began
            if came and spent >= seconds:
                self.hold()
                return images, spent

    def _new_images(self) -> int:
        return sum(record.event.images for record in self._log.records() if isinstance(record.event, Steps))


def compare(first: Contender, second: Contender, blocks: int, seconds: float) -> Comparison:
    """Let two programs train by turns.

    Args:
        first: Held.
        second: Held too.
        blocks: Of four slices; two or more.
        seconds: In each slice.
    """
    for contender in (first, second):
        contender.run(_SETTLE_S)  # settles allocator and caches
    rates = []
    for block in range(blocks):
        sums = {first: [0.0, 0.0], second: [0.0, 0.0]}
        for contender in (first, second, second, first) if block % 2 == 0 else (second, first, first, second):
            images, spent = contender.run(seconds)
            sums[contender][0] += images
            sums[contender][1] += spent
        rates.append((sums[first][0] / sums[first][1], sums[second][0] / sums[second][1]))
    for contender in (first, second):
        contender.release()
    return Comparison(rates)
