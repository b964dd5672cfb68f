"""Images per second of a detached run and of one with an attached viewer, compared with a headless run in alternating slices.

    python -m benchmarks.looking [--of detached attached] [--pairs 4] [--blocks 2] [--seconds 4]

`benchmarks.dashboard` has the ratio of a run with its own dashboard, `benchmarks.stalled_terminal` that of a terminal that is not
read. Nothing else should run on the machine. Exits with 1 when a ratio is below the limit.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.dashboard import training
from benchmarks.slices import ENDLESS_DIGITS, Contender, Plan, compare, images_of_log
from tests.support.pseudo_terminal import PseudoTerminal
from trainer.run.folder.lock import read_owner
from trainer.run.folder.run_dir import RunDir

LEAST_RATIO = 0.98
_END_S = 60.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", choices=("detached", "attached"), default=["detached", "attached"])
    Plan.add_arguments(parser, pairs=4, blocks=2, seconds=4.0)
    arguments = parser.parse_args()
    met = True
    for name in arguments.of:
        contender = functools.partial(detached, attach=name == "attached")
        comparison = compare(contender, functools.partial(training, "--headless"), Plan.from_arguments(arguments))
        met &= comparison.ratio >= LEAST_RATIO
        print(f"img/s {name} / headless: {comparison}   limit {LEAST_RATIO}", flush=True)
    return 0 if met else 1


@contextmanager
def detached(*, attach: bool) -> Iterator[Contender]:
    """A run in the background, with or without a viewer in another process."""
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "tui.cli"]
        run_dir = RunDir(Path(folder) / "digits")
        settings = [*ENDLESS_DIGITS, "run.convolution=products", "--runs-dir", folder]
        subprocess.run([*program, *settings, "--detach"], check=True, stdout=subprocess.DEVNULL)
        trainer = psutil.Process(int((read_owner(run_dir) or {})["pid"]))
        # A contender needs a terminal, also without a viewer.
        screen = [*program, "attach", "digits", "--runs-dir", folder] if attach else ["sleep", "86400"]
        try:
            with PseudoTerminal(screen) as terminal:
                yield Contender(terminal, images_of_log(run_dir.events), beside=[trainer])
        finally:
            trainer.resume()
            os.kill(trainer.pid, signal.SIGTERM)
            trainer.wait(_END_S)


if __name__ == "__main__":
    sys.exit(main())
