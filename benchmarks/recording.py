"""Cost of recording a step in the training thread; time, memory and disk of a long run in `r18-tui show`.

    python -m benchmarks.recording [--steps 1000000]

First, everything that the thread does for its log, by the number of steps in a window (0.4 s): filling a slot of the metrics,
collecting a window and publishing its event. Then generated logs with a hundred steps and with one step per line, until the
screen shows the last step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.attach import show, write_history
from trainer.run.log.writer import EventLog
from trainer.training.loop import steps_event
from trainer.training.metrics import CAPACITY, StepMetrics

_ROUNDS = 7
_STEPS = 20_000


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of the logs that are opened")
    steps = parser.parse_args().steps
    for window in (CAPACITY, 8, 1):
        costs = [record(window) for _ in range(_ROUNDS)]
        print(f"recording a step, {window} in a window: {statistics.median(costs) * 1e6:.1f} us (of {_ROUNDS}: "
              f"{min(costs) * 1e6:.1f} to {max(costs) * 1e6:.1f})", flush=True)  # fmt: skip
    for line in (100, 1):
        with tempfile.TemporaryDirectory() as folder:
            log = write_history(Path(folder), steps, line=line)
            opened = [show(Path(folder), steps) for _ in range(3)]
            print(
                f"{steps:,} steps, {line} a line, {log.stat().st_size / 1e6:.1f} MB: shown after "
                f"{statistics.median(seconds for seconds, _ in opened):.2f} s, "
                f"{max(memory for _, memory in opened) / 1e6:.0f} MB resident",
                flush=True,
            )
    return 0


def record(window: int) -> float:
    """Seconds of the training thread for each recorded step, with `window` steps in a window."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "events.jsonl")
        metrics = StepMetrics(torch.device("cpu"))
        budget = {"data": 1.0, "compute": 2.0, "evaluate": 0.0, "save": 0.0}
        began = time.perf_counter()
        for step in range(1, _STEPS + 1):
            metrics.reserve_slot(step, 0.1, 128)
            if step % window == 0:
                metrics.start_copy(0.1)
                collected = metrics.collect(wait=True)
                assert collected is not None
                # The time budget is logged every five seconds, which is every twelfth window.
                log.publish(steps_event(collected, {} if step // window % 12 else budget))
        seconds = time.perf_counter() - began
        log.close()
    return seconds / _STEPS


if __name__ == "__main__":
    sys.exit(main())
