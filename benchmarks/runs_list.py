"""Cost of the list of runs in a folder of thousands: seconds until it is complete, CPU at rest, response times of keys.

    python -m benchmarks.runs_list [--runs 1000 2000] [--seconds 10]

The runs are generated: finished, of ten epochs, with evaluations and readings. Prints seconds from the command to the first
screenful and to the whole list, the share of a core at rest, milliseconds from a key to its response, and the duration of `q`
while the folder is read and at rest. In a pseudo-terminal of 120x40.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.attach import history
from tests.support.pseudo_terminal import PseudoTerminal
from trainer.run.log.codec import encode
from trainer.run.log.event import Record

_STEPS, _LINE = 10_000, 100
_DOWN, _PAGE_DOWN, _DELETE, _ESCAPE, _END = "\x1b[B", "\x1b[6~", "\x1b[3~", "\x1b", "\x1b[F"
_KEYS = 20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 2000], help="number of runs")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the measurement at rest")
    given = parser.parse_args()
    for count in given.runs:
        with tempfile.TemporaryDirectory() as folder:
            make_runs(Path(folder), count)
            print(f"{count:,} runs: {_measured(folder, count, given.seconds)}")
    return 0


def make_runs(folder: Path, count: int) -> None:
    """Make finished runs that started an hour apart."""
    events = list(history(_STEPS, _LINE))
    now = time.time()
    for index in range(count):
        run = folder / f"run-{index:05}"
        run.mkdir()
        (run / "trainer.json").touch()
        begun = now - 3600 * (count - index)
        lines = [encode(Record(seq=seq, time=begun + seq, event=event)) for seq, event in enumerate(events)]
        (run / "events.jsonl").write_bytes(b"".join(lines))


def _measured(folder: str, count: int, seconds: float) -> str:
    command = [sys.executable, "-m", "tui.cli", "runs", "--runs-dir", folder]
    with PseudoTerminal(command) as terminal:
        terminal.wait_for(r"run-\d+ +finished", 60)
        begun = time.perf_counter()
        terminal.send("q")
        terminal.wait_exit(60)
        early = time.perf_counter() - begun
    with PseudoTerminal(command) as terminal:
        first = terminal.wait_for(r"( +run-\d+ +finished[^\n]*\n){15}", 60)
        whole = terminal.wait_for(f"{count}, 0 in training", 120)
        terminal.drain(8)  # output before the list is at rest
        process = psutil.Process(terminal.pid)
        before, begun = process.cpu_times(), time.perf_counter()
        terminal.drain(seconds)
        after, passed = process.cpu_times(), time.perf_counter() - begun
        share = (after.user + after.system - before.user - before.system) / passed
        keys = {
            "down": _waits(terminal, _DOWN),
            "page down": _waits(terminal, _PAGE_DOWN),
            "space": _waits(terminal, " ", 6),
        }
        question = [terminal.echo(_DELETE, "Delete this run"), terminal.echo(_ESCAPE, "Held-out loss")]
        keys |= {"end": [terminal.echo(_END)], "del, escape": question}
        begun = time.perf_counter()
        terminal.send("q")
        terminal.wait_exit(60)
        late = time.perf_counter() - begun
    times_of_keys = ", ".join(
        f"{name} {statistics.median(waits):.0f} ms (at most {max(waits):.0f})" for name, waits in keys.items()
    )
    return (
        f"first screenful {first:.2f} s, all {whole:.2f} s, at rest {100 * share:.2f} % of a core; {times_of_keys}; "
        f"q {early:.2f} s while it is read, {late:.2f} s at rest"
    )


def _waits(terminal: PseudoTerminal, key: str, count: int = _KEYS) -> list[float]:
    """Milliseconds until the response to a key, at random times."""
    draw = random.Random(0)
    waits = []
    for _ in range(count):
        terminal.drain(0.1 + 0.2 * draw.random())
        waits.append(terminal.echo(key))
    return waits


if __name__ == "__main__":
    sys.exit(main())
