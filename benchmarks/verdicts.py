"""Verdicts of the dashboard about real runs: none about healthy runs, the fault of each faulty one.

    python -m benchmarks.verdicts WORK_FOLDER

Small runs on the embedded digits: twenty healthy ones that differ in seed, rate, schedule, optimizer, augmentation and batch,
and some with one fault each. The verdicts are computed after every line of a run's log, as on the screen. Runs that WORK_FOLDER
already holds are reused.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from trainer.data.digits import load_digits
from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import read_records
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView

_COMMON = (
    "data.image_size=16", "data.batch_size=32", "data.val_fraction=0.15", "train.epochs=12", "run.device=cpu",
    "run.precision=fp32", "run.channels_last=true", "run.convolution=native", "checkpoint.every_epoch=false",
)  # fmt: skip

HEALTHY: dict[str, tuple[str, ...]] = {
    **{f"seed {seed}": (f"run.seed={seed}",) for seed in range(5)},
    "low rate": ("optim.lr=0.01",),
    "high rate": ("optim.lr=0.15",),
    "cosine": ("schedule.name=cosine",),
    "constant rate": ("schedule.name=constant", "optim.lr=0.02"),
    "long warm-up": ("schedule.warmup=0.5",),
    "Muon": ("optim.name=muon", "optim.kernel_lr=0.12"),
    "MixUp": ("data.mixup=0.4",),
    "CutMix": ("data.cutmix=1.0",),
    "no label smoothing": ("train.label_smoothing=0.0",),
    "dropout": ("model.dropout=0.3",),
    "small batches": ("data.batch_size=16", "train.epochs=8"),
    "large batches": ("data.batch_size=128", "train.epochs=40"),
    "smaller images first": ("data.progressive=[[8, 4]]",),
    "average of weights": ("train.ema_decay=0.99",),
    "hard augmentation": (
        "data.crop_pad=0",
        "data.resized_crop=0.5",
        "data.random_erase=0.5",
        "data.trivial_augment=true",
    ),
}


def main() -> int:
    """Train, collect verdicts and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    work: Path = parser.parse_args().work
    alarms = 0
    print("| healthy run | verdicts, and at which step |\n|---|---|")
    for name, settings in HEALTHY.items():
        found_at = _verdicts_of(_trained(work, name, settings))
        alarms += bool(found_at)
        print(f"| {name} | {_shown(found_at)} |", flush=True)
    print(f"\nfalse alarms: {alarms} of {len(HEALTHY)} runs\n")
    print("| fault | expected | verdicts, and at which step |\n|---|---|---|")
    missed = 0
    for name, (make, settings, expected) in FAULTY.items():
        found_at = _verdicts_of(_trained(work, name, (*make(work), *settings)))
        missed += not expected & found_at.keys()
        print(f"| {name} | {' or '.join(sorted(expected))} | {_shown(found_at)} |", flush=True)
    print(f"\nmissed: {missed} of {len(FAULTY)} faults")
    return 0


def _trained(work: Path, name: str, settings: tuple[str, ...]) -> RunDir:
    run = RunDir(work / "runs" / name.replace(" ", "-"))
    if not run.config.is_file():
        command = [sys.executable, "-m", "trainer", "digits", "--name", run.name, "--runs-dir", str(run.path.parent)]
        # A run with a fault may end by itself.
        subprocess.run([*command, *_COMMON, *settings], check=False, capture_output=True)
    return run


def _verdicts_of(run: RunDir) -> dict[str, int]:
    """Kinds of verdicts, and the step at which each first appeared."""
    view = RunView()
    found_at: dict[str, int] = {}
    for record in read_records(run.events):
        apply(view, record)
        for verdict in verdicts(view):
            found_at.setdefault(verdict.kind, view.step)
    assert view.step, f"{run.path}: no step was taken"
    if view.failure is not None:
        found_at["its failure"] = view.step  # replaces all verdicts
    return found_at


def _shown(found_at: dict[str, int]) -> str:
    return ", ".join(f"{kind} ({step})" for kind, step in found_at.items()) or "nothing"


def _unchanged(_work: Path) -> tuple[str, ...]:
    return ()


def _folder(name: str, change: Callable[[str, int], int], *, side: int = 16) -> Callable[[Path], tuple[str, ...]]:
    """A folder of the digits as files of `side` pixels; `change` maps split and label to the class folder of the image."""

    def make(work: Path) -> tuple[str, ...]:
        root = work / name
        if not root.is_dir():
            data = load_digits(16)
            for split_name, split in data.splits.items():
                pixels, labels = split.pixels(range(len(split))).numpy(), split.labels_N.tolist()
                for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
                    folder = root / split_name / str(change(split_name, label))
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).resize((side, side)).save(folder / f"{index}.png")
        return ("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0")

    return make


def _few(work: Path) -> tuple[str, ...]:
    """Eight training images of each digit."""
    settings = _folder("few", lambda _split, label: label)(work)
    for folder in (work / "few" / "train").iterdir():
        _keep(folder, 8)
    return settings


def _rare(work: Path) -> tuple[str, ...]:
    """Two training images of a digit."""
    settings = _folder("rare", lambda _split, label: label)(work)
    _keep(work / "rare" / "train" / "7", 2)
    return settings


def _keep(folder: Path, images: int) -> None:
    for path in sorted(folder.iterdir())[images:]:
        path.unlink()


_DRAW = random.Random(0)
_SWAPPED = {3: 8, 8: 3}

FAULTY: dict[str, tuple[Callable[[Path], tuple[str, ...]], tuple[str, ...], set[str]]] = {
    "rate far too high": (_unchanged, ("optim.lr=30.0", "schedule.warmup=0.0"), {"not finite", "its failure"}),
    "rate far too low": (_unchanged, ("optim.lr=1.0e-7",), {"loss stuck"}),
    "labels at random": (_folder("random", lambda _split, _label: _DRAW.randrange(10)), ("optim.lr=0.01",), {"loss stuck"}),
    "two classes swapped in test": (
        _folder("swapped", lambda split, label: _SWAPPED.get(label, label) if split == "test" else label),
        ("data.val_fraction=0.0",), {"labels swapped"},
    ),
    "two images of a class": (_rare, ("data.val_fraction=0.0",), {"class not learnt"}),
    "eight images a class, long": (
        _few,
        ("data.val_fraction=0.0", "data.batch_size=16", "train.epochs=120", "train.label_smoothing=0.0", "data.crop_pad=0",
         "optim.weight_decay=0.0", "optim.lr=0.02"),
        {"overfitting"},
    ),
    "large files, decoded for each epoch by one process": (
        _folder("large", lambda _split, label: label, side=900),
        ("data.cache=none", "data.workers=0", "train.epochs=3", "data.val_fraction=0.0"), {"data-bound"},
    ),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
