"""Print the training time of recorded runs until they first reached an accuracy, and their last accuracy.

    python -m benchmarks.time_to_accuracy runs/digits runs/digits-2 [--accuracy 0.99]

Accuracies are without flip-TTA. Training time is that of the steps in the run's log (including waiting for data, without
evaluations, saves and pauses); the time on the clock since the first step is printed, too. Resumed runs are rejected.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import Evaluated, Steps
from trainer.run.log.run_events import Resumed


@dataclass(frozen=True)
class Reached:
    """An evaluation, and the time until then.

    Attributes:
        accuracy: Plain top-1, without flip-TTA.
        accuracy_tta: Top-1 with flip-TTA; None when it was not configured.
        training_s: Seconds of training steps.
        clock_s: Seconds on the clock since the first step began.
    """

    epoch: float
    accuracy: float
    accuracy_tta: float | None
    training_s: float
    clock_s: float


def measure(run: RunDir, accuracy: float) -> tuple[Reached | None, Reached | None, float]:
    """The first evaluation of the selection split with `accuracy` (0 to 1), the last one, and mean images per second."""
    training_s = began_s = 0.0
    images = 0
    first = last = None
    for record in read_records(run.events):
        event = record.event
        if isinstance(event, Steps):
            began_s = began_s or record.time - event.seconds
            training_s += event.seconds
            images += event.images
        elif isinstance(event, Resumed):
            raise SystemExit(f"{run.path}: was resumed; its steps and its clock do not add up")
        elif isinstance(event, Evaluated) and event.trigger == "epoch":
            last = Reached(event.epoch, event.accuracy, event.accuracy_tta, training_s, record.time - began_s)
            first = first or (last if event.accuracy >= accuracy else None)
    return first, last, images / training_s if training_s else 0.0


def main() -> None:
    """Print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--accuracy", type=float, default=0.99)
    arguments = parser.parse_args()
    for path in arguments.runs:
        first, last, rate = measure(RunDir(path), arguments.accuracy)
        reached = "never" if first is None else _words(first)
        print(
            f"{path.name}: {rate:.0f} img/s; >= {arguments.accuracy:.1%}: {reached}; end: {_words(last) if last else '-'}"
        )


def _words(reached: Reached) -> str:
    tta = f" (flip-TTA {reached.accuracy_tta:.2%})" if reached.accuracy_tta is not None else ""
    return (
        f"{reached.accuracy:.2%}{tta} at epoch {reached.epoch:g} after {reached.training_s:.0f} s of training "
        f"({reached.clock_s:.0f} s on the clock)"
    )


if __name__ == "__main__":
    main()
