"""Training speed while the terminal is not read, and the time until the dashboard is up to date when it is read again.

    python -m benchmarks.stalled_terminal [--blocks 2] [--seconds 60]

The terminal of a run is read and not read by turns, in slices of `--seconds`. Prints images per second of every slice by the
run's log, the ratio with its standard error over the blocks, and the seconds until the screen shows the current step again. Exits
with 1 when the ratio is below its limit or the screen does not recover.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from pathlib import Path

from benchmarks.dashboard import program
from tests.support.pseudo_terminal import PseudoTerminal
from trainer.run.log.reader import LogReader
from trainer.run.log.result_events import Steps

LEAST_RATIO = 0.98
_BACK_WITHIN_S = 20.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2, help="of four slices: read, stalled, stalled, read")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each slice")
    arguments = parser.parse_args()
    with program() as (terminal, log):
        terminal.wait_for(r"step [1-9]", 120)
        follower = LogReader(log)
        _rate(terminal, follower, 10.0, read=True)
        ratios, comebacks = [], []
        for _ in range(arguments.blocks):
            rates = [_rate(terminal, follower, arguments.seconds, read=True)]
            terminal.pump(1.0)  # emulates the output of this slice, which would otherwise be timed below
            rates += [_rate(terminal, follower, arguments.seconds, read=False) for _ in range(2)]
            comebacks.append(_seconds_to_come_back(terminal, log))
            rates.append(_rate(terminal, follower, arguments.seconds, read=True))
            ratios.append((rates[1] + rates[2]) / (rates[0] + rates[3]))
            print("img/s read, stalled, stalled, read: " + ", ".join(f"{rate:.1f}" for rate in rates))
    error = f" +- {statistics.stdev(ratios) / len(ratios) ** 0.5:.3f}" if len(ratios) > 1 else ""
    ratio = statistics.mean(ratios)
    print(f"stalled / read: {ratio:.3f}{error}   limit {LEAST_RATIO}")
    print("s until the screen was back: " + ", ".join(f"{seconds:.1f}" for seconds in comebacks))
    return 0 if ratio >= LEAST_RATIO else 1


def _rate(terminal: PseudoTerminal, follower: LogReader, seconds: float, *, read: bool) -> float:
    """Images per second of a slice."""
    for _ in follower.records():
        continue  # skips records of the previous slice
    if read:
        terminal.drain(seconds)
    else:
        time.sleep(seconds)
    steps = [record.event for record in follower.records() if isinstance(record.event, Steps)]
    return sum(event.images for event in steps) / sum(event.seconds for event in steps)


def _seconds_to_come_back(terminal: PseudoTerminal, log: Path) -> float:
    """Seconds until the screen shows a step newer than the newest at the time of the call."""
    step = max(
        event.first_step + len(event.loss)
        for event in (record.event for record in LogReader(log).records())
        if isinstance(event, Steps)
    )
    began = time.monotonic()
    while time.monotonic() - began < _BACK_WITHIN_S:
        terminal.pump(0.1)
        shown = re.search(r"step ([\d,]+)/", terminal.text)
        if shown and int(shown.group(1).replace(",", "")) >= step:
            return time.monotonic() - began
    raise TimeoutError(f"the screen did not come back within {_BACK_WITHIN_S:g} s:\n{terminal.text}")


if __name__ == "__main__":
    sys.exit(main())
