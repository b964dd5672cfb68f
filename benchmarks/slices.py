"""Compares two training programs in alternating slices of a few seconds.

One is stopped (SIGSTOP) while the other runs, in the orders A B B A and B A A B by turns, since the speed of a shared machine
varies from minute to minute by more than the measured differences. A stopped step continues later, so no work is lost between
slices.

Two processes of the same program differ by some 2 % for their whole life (probably by the placement of their memory), so both are
restarted several times, and the standard error is that of the ratios of these pairs.
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
    """Images per second of two programs, for two or more pairs of processes."""

    rates: list[tuple[float, float]]

    @property
    def first(self) -> float:
        """Mean images per second of the first program."""
        return float(statistics.mean(a for a, _ in self.rates))

    @property
    def ratio(self) -> float:
        """The first program's mean rate divided by the second's."""
        return self.first / float(statistics.mean(b for _, b in self.rates))

    @property
    def error(self) -> float:
        """Standard error of the ratio over the pairs."""
        return float(statistics.stdev(a / b for a, b in self.rates)) / math.sqrt(len(self.rates))

    def __str__(self) -> str:
        first, second = (statistics.mean(pair[i] for pair in self.rates) for i in (0, 1))
        each = " ".join(f"{a / b:.3f}" for a, b in self.rates)
        return f"{self.ratio:.3f} +- {self.error:.3f} ({first:.1f} / {second:.1f} img/s; pairs: {each})"


def images_of_log(log: Path) -> Callable[[], int]:
    """A function that returns the images of the steps that a run has logged since the last call."""
    follower = LogReader(log)
    return lambda: sum(record.event.images for record in follower.records() if isinstance(record.event, Steps))


def images_of_lines(log: Path) -> Callable[[], int]:
    """The same for a program that writes the number of images of each step to a line."""
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
    """A training program with all its processes."""

    def __init__(
        self, terminal: PseudoTerminal, new_images: Callable[[], int], *, beside: Sequence[psutil.Process] = ()
    ) -> None:
        """Wait until it trains, and stop it.

        Args:
            terminal: The program's terminal.
            new_images: Returns the number of images trained since the last call.
            beside: The program's processes that the terminal did not start.
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
        """Resume every process."""
        for process in self._processes:
            process.resume()

    def run(self, seconds: float) -> tuple[int, float]:
        """Run for at least some seconds, until steps are logged; returns the images trained, and the seconds."""
        self.release()
        began = time.perf_counter()
        self._new_images()  # images that are logged only now belong to the previous slice
        images = 0
        while True:
            self._terminal.drain(0.05)
            new = self._new_images()
            images += new
            spent = time.perf_counter() - began
            if new and spent >= seconds:
                self.hold()
                return images, spent


Program = Callable[[], AbstractContextManager[Contender]]
"""A context manager that starts a training program, and ends it."""


@dataclass(frozen=True)
class Plan:
    """Extent of a comparison: pairs of processes (two or more), blocks of four slices per pair, seconds per slice."""

    pairs: int
    blocks: int
    seconds: float

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser, *, pairs: int, blocks: int, seconds: float) -> None:
        """Add the options that `from_arguments` reads."""
        parser.add_argument("--pairs", type=_from(2), default=pairs, help="of processes")
        parser.add_argument("--blocks", type=_from(1), default=blocks, help="of four alternating slices, for each pair")
        parser.add_argument("--seconds", type=float, default=seconds, help="of training in each slice")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Plan:
        """Read the command line."""
        return cls(arguments.pairs, arguments.blocks, arguments.seconds)


def compare(first: Program, second: Program, plan: Plan) -> Comparison:
    """Run two programs in alternating slices."""
    rates = []
    for pair in range(plan.pairs):
        # The order alternates, since a process's free memory may depend on which started first.
        if pair % 2 == 0:
            with first() as a, second() as b:
                rates.append(_alternate(a, b, plan))
        else:
            with second() as b, first() as a:
                rates.append(_alternate(a, b, plan))
    return Comparison(rates)


def _alternate(first: Contender, second: Contender, plan: Plan) -> tuple[float, float]:
    """Images per second of two stopped programs, over all blocks."""
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
