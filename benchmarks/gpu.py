"""Results of one CUDA GPU: throughput with and without graphs, and complete runs of the shipped CIFAR-10 recipes.

    python -m benchmarks.gpu CIFAR10 [--skip-accurate]

CIFAR10 is the folder that holds `cifar-10-batches-py`, or CIFAR-10 as an image folder (`train/<class>/*.png`, `test/...`). Prints
the table of benchmarks/RESULTS.md in less than ten minutes on a large GPU. Times of steps and evaluations are from the run's log;
the rest of the run's time (start, saves) is printed separately.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from trainer.config.loader import load_config
from trainer.config.schema import Config
from trainer.model.device import choose_device, describe_device
from trainer.model.versions import software_versions
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import Evaluated, Steps
from trainer.training.step_timing import matrix_peak, measure

_CASES = {
    "stem cifar, batch 512": ("model.stem=cifar", "data.batch_size=512"),
    "stem cifar, batch 128": ("model.stem=cifar", "data.batch_size=128"),
    "stem cifar-maxpool, batch 512": ("model.stem=cifar-maxpool", "data.batch_size=512"),
    "stem cifar, batch 512, muon": ("model.stem=cifar", "data.batch_size=512", "optim.name=muon"),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--skip-accurate", action="store_true", help="skip the 200 epochs of cifar-accurate")
    arguments = parser.parse_args()
    device = choose_device("cuda")
    print(f"{describe_device(device)['name']}, torch {software_versions()['torch']}")
    peak = matrix_peak(device, "bf16")
    print(f"matrix products: {peak / 1e3:,.0f} TFLOP/s in bf16\n")
    for name, settings in _CASES.items():
        for graph in (True, False):
            config = load_config("cifar", [*settings, f"run.cuda_graph={str(graph).lower()}"]).config
            _throughput(f"{name}, {'one graph' if graph else 'kernel by kernel'}", config, device, peak)
    print()
    for name in ("cifar",) if arguments.skip_accurate else ("cifar", "cifar-accurate"):
        _to_the_end(name, arguments.cifar.resolve())
    return 0


def _throughput(name: str, config: Config, device: torch.device, peak: float) -> None:
    speed = measure(config, device)
    shares = ", ".join(f"{phase} {share:.0%}" for phase, share in speed.shares.items())
    used = speed.gflop / speed.step_s / peak
    print(f"{name}: {speed.images_per_s:,.0f} img/s, {used:.0%} of the peak ({shares})", flush=True)


def _to_the_end(name: str, cifar: Path) -> None:
    as_folder = [] if (cifar / "cifar-10-batches-py").exists() else ["data.kind=imagefolder", "data.crop_pct=1.0"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "trainer",
            name,
            f"data.root={cifar}",
            *as_folder,
            "eval.tta=flip",
            "--runs-dir",
            folder,
        ]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole_s = time.perf_counter() - began
        events = [record.event for record in read_records(Path(folder) / name / "events.jsonl")]
    steps_s = sum(event.seconds for event in events if isinstance(event, Steps))
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    evaluations_s = sum(event.seconds for event in evaluations)
    last, rest_s = evaluations[-1], whole_s - steps_s - evaluations_s
    print(
        f"configs/{name}.yaml, seed 0: {last.accuracy:.2%} plain, {last.accuracy_tta or 0.0:.2%} flip-TTA after {steps_s:.1f} s "
        f"of steps, {evaluations_s:.1f} s of {len(evaluations)} evaluations and {rest_s:.1f} s of all else",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
