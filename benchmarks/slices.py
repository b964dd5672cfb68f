"""Two training programs compared in alternating slices of a few seconds.

Both train at once, and one of them is stopped (SIGSTOP) while the other runs, in the orders A B B A and B A A B by turns. So
both meet the same moods of a shared machine, which from minute to minute differ by more than what is measured here. A stopped
step goes on where it was, so no work is lost at the edge of a slice.

Two processes of the very same program differ by some 2 % for as long as they live (where their memory lies, presumably), so
both are started anew several times, and the error is that of the ratios of these pairs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.pseudo_terminal import PseudoTerminal
from trainer.run.log.reader import LogReader
from trainer.run.log.result_events import Steps

ENDLESS_DIGITS = (
    "digits", "train.epochs=10000", "checkpoint.every_s=100000", "checkpoint.every_epoch=false",
    "eval.every_epochs=10000", "run.precision=fp32", "run.channels_last=true",
)  # fmt: skip
"""Arguments of a run that only trains, without timing anything first; `run.convolution` is still to be set."""

_SETTLE_S = 5.0
_START_S = 180.0


@dataclass(frozen=True)
class Comparison:
    """Images a second of two programs, a pair of rates for each pair of processes; two or more."""

    rates: list[tuple[float, float]]

    @property
    def first(self) -> float:
        """Mean images a second of the first."""
        return float(statistics.mean(a for a, _ in self.rates))

    @property
    def ratio(self) -> float:
        """Of the first's mean rate to the second's."""
        return self.first / float(statistics.mean(b for _, b in self.rates))

    @property
    def error(self) -> float:
        """Standard error of the ratio, from the scatter of the pairs."""
        return float(statistics.stdev(a / b for a, b in self.rates)) / math.sqrt(len(self.rates))

    def __str__(self) -> str:
        first, second = (statistics.mean(pair[i] for pair in self.rates) for i in (0, 1))
        each = " ".join(f"{a / b:.3f}" for a, b in self.rates)
        return f"{self.ratio:.3f} +- {self.error:.3f} ({first:.1f} / {second:.1f} img/s; pairs: {each})"


def images_of_log(log: Path) -> Callable[[], int]:
    """Counts the images of a run by its event log: at each call those of the steps that were logged since the last one."""
    follower = LogReader(log)
    return lambda: sum(record.event.images for record in follower.records() if isinstance(record.event, Steps))


def images_of_lines(log: Path) -> Callable[[], int]:
    """Counts the images of a program that writes a number of images to a line after each step."""
    position = 0

    def count() -> int:
        nonlocal position
        if not log.is_file():
            return 0
        with log.open("rb") as file:
            file.seek(position)
            whole, newline, _ = file.read().rpartition(b"\n")
        position += len(whole) + len(newline)
        return sum(map(int, whole.split()))

    return count


class Contender:
    """A program with all its processes, and what it has trained."""

    def __init__(
        self, terminal: PseudoTerminal, new_images: Callable[[], int], *, beside: Sequence[psutil.Process] = ()
    ) -> None:
        """Wait until it trains, and stop it.

        Args:
            terminal: In which it runs.
            new_images: How many images it has trained since the last call.
            beside: Processes of it that the terminal did not start.
        """
        self._beside = beside
        self._terminal = terminal
        self._new_images = new_images
        end = time.monotonic() + _START_S
        while not self._new_images():
            terminal.pump(0.2)
            if time.monotonic() > end or not terminal.alive():
                raise TimeoutError(f"no step within {_START_S:g} s; the screen:\n{terminal.text}")
        self.hold()

    def hold(self) -> None:
        """Stop every process."""
        root = psutil.Process(self._terminal.pid)
        self._processes = [root, *root.children(recursive=True), *self._beside]
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


Program = Callable[[], AbstractContextManager[Contender]]
"""Starts a training program, and ends it."""


@dataclass(frozen=True)
class Plan:
    """How two programs are compared.

    Attributes:
        pairs: Of processes, started anew each time; two or more.
        blocks: Of four slices, for each pair.
        seconds: In each slice.
    """

    pairs: int
    blocks: int
    seconds: float

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser, *, pairs: int, blocks: int, seconds: float) -> None:
        """The options of `from_arguments`, with their defaults."""
        parser.add_argument("--pairs", type=_from(2), default=pairs, help="of processes, with and without")
        parser.add_argument("--blocks", type=_from(1), default=blocks, help="of four alternating slices, for each pair")
        parser.add_argument("--seconds", type=float, default=seconds, help="of training in each slice")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Plan:
        """What the command line asks for."""
        return cls(arguments.pairs, arguments.blocks, arguments.seconds)


def compare(first: Program, second: Program, plan: Plan) -> Comparison:
    """Let two programs train by turns."""
    rates = []
    for pair in range(plan.pairs):
        # By turns, since what a process finds free in memory may depend on which was there first.
        if pair % 2 == 0:
            with first() as a, second() as b:
                rates.append(_alternate(a, b, plan))
        else:
            with second() as b, first() as a:
                rates.append(_alternate(a, b, plan))
    return Comparison(rates)


def _alternate(first: Contender, second: Contender, plan: Plan) -> tuple[float, float]:
    """Images a second of two programs that are held, over all blocks."""
    for contender in (first, second):
        contender.run(_SETTLE_S)  # settles allocator and caches
    sums = {first: [0.0, 0.0], second: [0.0, 0.0]}
    for block in range(plan.blocks):
        for contender in (first, second, second, first) if block % 2 == 0 else (second, first, first, second):
            images, spent = contender.run(plan.seconds)
            sums[contender][0] += images
            sums[contender][1] += spent
    for contender in (first, second):
        contender.release()
    return sums[first][0] / sums[first][1], sums[second][0] / sums[second][1]


def _from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, found {value}")
        return value

    return number
