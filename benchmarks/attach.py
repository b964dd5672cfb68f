"""Seconds from `r18-tui attach` to the dashboard with a run's whole history, for logs of several lengths.

    python -m benchmarks.attach [--steps 10000 200000 1000000]

The logs are generated: a hundred steps per line, an evaluation every thousand steps, readings and heartbeats. Prints the median
of five starts, from the command to the screen with the last step.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.support.pseudo_terminal import PseudoTerminal
from trainer.run.log.codec import encode
from trainer.run.log.event import Event, Record
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Finished, Heartbeat, Monitored, Opened, Started
from trainer.training.loop import steps_event
from trainer.training.metrics import Window

_STARTS = 5
_LINE, _EPOCH = 100, 1000
_LINE_S = 0.5
"""Seconds per line of the log; the trainer's own lines cover a little less."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[10_000, 200_000, 1_000_000], help="lengths of the logs"
    )
    lengths = parser.parse_args().steps
    if any(steps % 100 or steps <= 0 for steps in lengths):
        parser.error("a log holds whole hundreds of steps")
    for steps in lengths:
        with tempfile.TemporaryDirectory() as folder:
            log = write_history(Path(folder), steps)
            seconds = statistics.median(attach(Path(folder), steps) for _ in range(_STARTS))
            print(f"{steps:9,} steps, {log.stat().st_size / 1e6:5.1f} MB: {seconds:.2f} s")
    return 0


def write_history(runs_dir: Path, steps: int, *, line: int = _LINE, spike: int | None = None) -> Path:
    """Write the log of a finished run `history` of whole thousands of steps; step `spike` has a loss of 40."""
    log = runs_dir / "history" / "events.jsonl"
    log.parent.mkdir()
    now = time.time()
    with log.open("wb") as file:
        for seq, event in enumerate(history(steps, line, spike)):
            file.write(encode(Record(seq=seq, time=now + seq * _LINE_S, event=event)))
    return log


def show(runs_dir: Path, steps: int) -> tuple[float, int]:
    """Seconds until `r18-tui show` shows the last step, and its resident bytes at that time."""
    command = [sys.executable, "-m", "tui.cli", "show", "history", "--runs-dir", str(runs_dir)]
    with PseudoTerminal(command) as terminal:
        seconds = terminal.wait_for(f"step {steps:,}/{steps:,}", 60)
        return seconds, psutil.Process(terminal.pid).memory_info().rss


def attach(runs_dir: Path, steps: int) -> float:
    """Seconds until `r18-tui attach` shows the last step."""
    command = [sys.executable, "-m", "tui.cli", "attach", "history", "--runs-dir", str(runs_dir)]
    with PseudoTerminal(command) as terminal:
        return terminal.wait_for(f"step {steps:,}/{steps:,}", 60)


def history(steps: int, line: int, spike: int | None = None) -> Iterator[Event]:
    """The events of a finished run, with `line` steps in each event."""
    yield Opened(run="history", directory="history", pid=1, host="", resume=False, config={})
    yield Started(
        classes=[str(label) for label in range(10)], splits={"train": 64_000, "test": 1000}, selection_split="test",
        fingerprint="", model={"name": "ResNet-18", "stem": "cifar", "parameters": 11_173_962}, device={"name": "CPU"},
        choices={"precision": "fp32"}, epochs=steps // _EPOCH, steps_per_epoch=_EPOCH, total_steps=steps,
        planned_lr=[[0.0, float(steps)], [0.1, 0.0]], versions={},
    )  # fmt: skip
    draw = random.Random(0)
    spent = 0.0
    for index, first in enumerate(range(1, steps + 1, line)):
        numbers = range(first, first + line)
        spent += _LINE_S
        window = Window(
            first_step=first,
            losses=[40.0 if n == spike else 2 * math.exp(-n / steps) + draw.random() / 10 for n in numbers],
            accuracies=[draw.randrange(65) / 64 for _ in numbers], skipped=[False] * line,
            lrs=[0.1 * (1 - n / steps) for n in numbers], images=[64] * line, seconds=_LINE_S,
        )  # fmt: skip
        # A trainer logs its time budget every five seconds, readings and heartbeats every ten.
        with_budget = index % round(5 / _LINE_S) == 0
        yield steps_event(window, {"data": 0.0, "compute": spent, "evaluate": 0.0, "save": 0.0} if with_budget else {})
        if index % round(10 / _LINE_S) == 0:
            used = 10**9 + draw.randrange(10**8)
            readings = {"process_bytes": used, "system_used_bytes": 2 * used, "system_total_bytes": 25 * 10**9}
            yield Monitored(readings=readings | {"cpu_pct": round(100 * draw.random(), 1)})
            yield Heartbeat()
        last = numbers[-1]
        if last % _EPOCH == 0:
            yield Evaluated(
                split="test", epoch=last / _EPOCH, step=last, loss=0.5, accuracy=0.5, correct=[50] * 10, counts=[100] * 10,
            )  # fmt: skip
    yield Finished(reason="completed", step=steps, epoch=steps / _EPOCH, exit_code=0)


if __name__ == "__main__":
    sys.exit(main())
