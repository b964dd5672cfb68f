"""Random bytes, keys, pastes, terminal responses and resizes sent to the program in a pseudo-terminal.

    python -m benchmarks.random_input [--minutes 10] [--seed 0]

Rounds of two kinds alternate: `show` of a finished run receives only input without key presses, and its screen must not change;
`show`, `runs`, the start screen or a run that trains receives anything, and may end but not fail. Prints every failure with the
seed of its round; exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import TINY
from tests.support.canned import evaluated, opened, started, steps
from tests.support.pseudo_terminal import PseudoTerminal
from tests.support.terminal_input import changes_unpressed, survive
from tests.support.written_runs import write_log
from trainer.run.log.run_events import Finished

_PROGRAM = [sys.executable, "-m", "tui.cli"]
_ROUNDS = 60


def main() -> int:
    """Send and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each has the next")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    seed, faults = arguments.seed, 0
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        finished = Finished(reason="completed", step=100, epoch=1.0, exit_code=0)
        write_log(runs, "done", opened(), started(), steps(1), evaluated(1), finished)
        while time.monotonic() < end:
            for fault in _round(runs, seed):
                faults += 1
                print(f"seed {seed}: {fault}", flush=True)
            seed += 1
    print(f"{seed - arguments.seed} rounds, {faults} faults")
    return 1 if faults else 0


def _round(runs: Path, seed: int) -> list[str]:
    """The failures of one program."""
    draw = random.Random(seed)
    folder = ["--runs-dir", str(runs)]
    commands = [
        (["show", "done", *folder], "finished"), (["runs", *folder], "done"), ([*folder], "start as it is"),
        (["digits", *folder, "train.epochs=500", *TINY], "loading|training"),
    ]  # fmt: skip
    quiet = seed % 2 == 0
    command, shown = commands[0] if quiet else commands[seed // 2 % len(commands)]
    with PseudoTerminal(
        [*_PROGRAM, *command], cwd=str(runs.parent), env={"PYTHONPATH": str(Path(__file__).parents[1])}
    ) as terminal:
        terminal.wait_for(shown, 60)
        if quiet:
            return list(changes_unpressed(terminal, draw, _ROUNDS))
        fault = survive(terminal, draw, 4 * _ROUNDS)
        return [fault] if fault else []


if __name__ == "__main__":
    sys.exit(main())
