"""Damaged logs, each read by every reader of the program: the fold and its panes, reports, JSON, CSV, HTML, trackers, the list.

    python -m benchmarks.mutated_logs [--logs 2000] [--seed 0]

Prints every exception once with the first log that raises it, and how many logs had unreadable lines. Exits with 1 when one was
raised or a run is missing from the list.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.support.mutated_logs import lines, mutated, read_everywhere, write
from tui.commands.runs import print_runs


def main() -> int:
    """Damage, read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first log")
    given = parser.parse_args()
    raised: Counter[str] = Counter()
    left_out = 0
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "good", lines())
        for seed in range(given.seed, given.seed + given.logs):
            run = write(Path(folder) / f"odd-{seed}", mutated(seed))
            try:
                left_out += read_everywhere(run) > 0
            except Exception as error:  # noqa: BLE001 - any exception is a finding
                place = traceback.extract_tb(error.__traceback__)[-1]
                message = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
                if not raised[message]:
                    print(f"log {seed}: {message}")
                raised[message] += 1
        listed = io.StringIO()
        with contextlib.redirect_stdout(listed):
            print_runs(Path(folder))
    names = {line.split()[0] for line in listed.getvalue().splitlines()}
    missing = {"good", *(f"odd-{seed}" for seed in range(given.seed, given.seed + given.logs))} - names
    print(
        f"{given.logs:,} logs, {left_out:,} with lines left out: {raised.total()} exceptions, {len(missing)} runs not listed"
    )
    return 1 if raised or missing else 0


if __name__ == "__main__":
    sys.exit(main())
