"""Kills a training process at random times, resumes it, and compares its end with that of an uninterrupted run.

    python -m benchmarks.faults [--kills 100] [--seed 0] [--from-first-step] [CONFIG group.key=value ...]

Every kill is a SIGKILL: at a random time after the start, or while a checkpoint is half written. After each one the run's
directory is checked as a resume checks it, and the run is resumed until it finishes; then the next run starts. Prints the number
of kills by what the run was doing, and every broken promise. Exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.kill_and_resume import kill_and_resume

DIGITS = (
    "digits", "train.epochs=3", "run.deterministic=true", "run.precision=fp32", "run.channels_last=true",
    "run.convolution=products", "run.batch_norm=native", "checkpoint.every_s=2",
)  # fmt: skip
"""A run of some seconds that saves often, with fixed values of the settings that are otherwise chosen by timing."""


def main() -> int:
    """Kill, resume and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--from-first-step", action="store_true", help="no kill before the first step of its process")
    parser.add_argument("run", nargs="*", default=DIGITS, metavar="CONFIG group.key=value ...", help="what to train")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_and_resume(
            arguments.run,
            Path(folder),
            kills=arguments.kills,
            seed=arguments.seed,
            from_first_step=arguments.from_first_step,
        )
    for doing, count in result.kills.most_common():
        print(f"{doing:28} {count:4} kills")
    print(f"{'runs to their end':28} {result.runs:4}")
    print(f"steps since the newest checkpoint at a kill: {max(result.lost_steps, default=0)} at most")
    for promise in result.broken:
        print(f"NOT KEPT: {promise}")
    print("every promise was kept" if not result.broken else f"{len(result.broken)} promises were not kept")
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())
