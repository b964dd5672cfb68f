"""Fine-tuning compared with training from scratch on few images.

A backbone is trained on seven classes of CIFAR-10. The other three are then learned from 50, 200 and 1,000 images per class, from
that backbone and from random weights, both with the settings that `r18-tui init` proposes, and tested on the 3,000 test images of
these classes.

    python -m benchmarks.fine_tuning CIFAR10_FOLDER WORK_FOLDER [--images 50 200 1000] [--seeds 0 1]

CIFAR10_FOLDER holds CIFAR-10 as `train/<class>/*.png` and `test/<class>/*.png`. Runs that WORK_FOLDER already holds are reused.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from trainer.commands.init import configuration
from trainer.data.folder.survey import survey_folder
from trainer.host.gpu import gpu_present
from trainer.model.start_weights import find_start
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import Evaluated, Steps

NEW = ("cat", "dog", "ship")
"""Classes that the backbone was not trained on."""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tag", default="", help="part of the runs' names, to try other settings")
    parser.add_argument("--only", choices=("fine-tuned", "from scratch"), help="leave the other one out")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of what init proposes")
    arguments = parser.parse_args()
    runs = arguments.work / "runs"
    backbone = RunDir(runs / "backbone")
    if not backbone.config.is_file():
        seven = _linked(arguments.cifar, arguments.work / "seven", _other_classes(arguments.cifar), None)
        settings = ["data.kind=imagefolder", f"data.root={seven}", "data.crop_pct=1.0", "data.val_fraction=0.05"]
        _train("cifar-cpu-quick", "backbone", runs, settings)
    accuracy, seconds, _ = _result(backbone)
    print(f"backbone on {len(_other_classes(arguments.cifar))} classes: {accuracy:.2%} in {seconds / 60:.0f} minutes\n")
    print("| images a class | from | test accuracy of each seed | seconds of training | steps |\n|---|---|---|---|---|")
    for number in arguments.images:
        folder = _linked(arguments.cifar, arguments.work / f"three-{number}", NEW, number)
        for label, reference in (("fine-tuned", str(backbone.path)), ("from scratch", "none")):
            if arguments.only in (None, label):
                results = [_one(arguments, folder, number, label, reference, seed) for seed in arguments.seeds]
                accuracies = ", ".join(f"{accuracy:.2%}" for accuracy, _, _ in results)
                times = ", ".join(f"{seconds:.0f}" for _, seconds, _ in results)
                print(f"| {number:,} | {label} | {accuracies} | {times} | {results[0][2]:,} |", flush=True)
    return 0


def _one(
    arguments: argparse.Namespace, folder: Path, number: int, label: str, reference: str, seed: int
) -> tuple[float, float, int]:
    """Test accuracy, seconds of training and steps of one run."""
    name = f"{label.replace(' ', '-')}-{number}{arguments.tag}-{seed}"
    run = RunDir(arguments.work / "runs" / name)
    if not run.config.is_file():
        survey = survey_folder(folder, lambda *_: None)
        start = find_start(reference, arguments.work)
        file = arguments.work / f"{name}.yaml"
        file.write_text(configuration(survey, root=str(folder), start=start, gpu=gpu_present()))
        _train(str(file), name, arguments.work / "runs", [f"run.seed={seed}", *arguments.set])
    return _result(run)


def _other_classes(cifar: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in (cifar / "train").iterdir() if path.is_dir() and path.name not in NEW))


def _linked(cifar: Path, folder: Path, classes: tuple[str, ...], number: int | None) -> Path:
    """Fill a folder with links to the first `number` training images and all test images of each class."""
    for split, limit in (("train", number), ("test", None)):
        for name in classes:
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted((cifar / split / name).iterdir())[:limit]:
                link = target / path.name
                if not link.is_symlink():
                    link.symlink_to(path.resolve())
    return folder


def _train(config: str, name: str, runs: Path, overrides: list[str]) -> None:
    command = [sys.executable, "-m", "trainer", config, "--runs-dir", str(runs), "--name", name, *overrides]
    begun = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    print(re.sub(r"\s+", " ", f"{name}: {time.monotonic() - begun:.0f} s"), file=sys.stderr)


def _result(run: RunDir) -> tuple[float, float, int]:
    """Test accuracy of the weights that are best on val, seconds of steps, and steps."""
    events = [record.event for record in read_records(run.events)]
    tested = [event for event in events if isinstance(event, Evaluated) and event.split == "test"]
    steps = [event for event in events if isinstance(event, Steps)]
    return tested[-1].accuracy, sum(event.seconds for event in steps), steps[-1].first_step + len(steps[-1].loss) - 1


if __name__ == "__main__":
    sys.exit(main())
