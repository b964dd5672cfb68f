"""What the CPU does for each training step on a GPU, counted without one, on a stand-in for the CUDA libraries.

    python -m benchmarks.gpu_launches [CONFIG ...]

Prints a row for each configuration: launches outside of the CUDA graph, waits for the device, copies of pageable memory and the
training thread's time without the driver's share, per step; nodes of the graph; and waits and time of a snapshot of the state.
Needs g++ and the CUDA build of the version of PyTorch that `tests/support/null_cuda` answers to.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.null_cuda.stand_in import UnavailableError, build

FINE_TUNING = (
    "cifar", "data.crop_pad=0", "data.resized_crop=0.35", "data.trivial_augment=true", "data.random_erase=0.25",
    "optim.layer_decay=0.65", "train.ema_decay=0.99", "train.label_smoothing=0.1",
)  # fmt: skip
CASES = {
    "cifar": ("cifar",),
    "cifar-accurate": ("cifar-accurate",),
    "cifar-tutorial": ("cifar-tutorial",),
    "as `init` writes": FINE_TUNING,
    "images in RAM": ("cifar", "data.cache=ram"),
    "MixUp, CutMix": ("cifar", "data.mixup=0.2", "data.cutmix=1.0"),
    "dropout": ("cifar", "model.dropout=0.1"),
    "fp16": ("cifar", "run.precision=fp16"),
    "micro-batches": ("cifar", "train.grad_accum_steps=2"),
    "Muon": ("cifar", "optim.name=muon"),
    "no graph": ("cifar", "run.cuda_graph=false"),
}


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", metavar="CONFIG", nargs="*", choices=[[], *CASES], help="rows to print (default: all)")
    chosen = parser.parse_args().cases or list(CASES)
    with tempfile.TemporaryDirectory() as folder:
        try:
            surroundings = os.environ | build(Path(folder))
        except UnavailableError as error:
            print(error, file=sys.stderr)
            return 2
        print(
            "| configuration | launches | waits | pageable copies | CPU, ms | graph nodes | snapshot: waits, CPU ms |"
        )
        print("|---|---|---|---|---|---|---|")
        for name in chosen:
            command = [sys.executable, "-m", "tests.support.null_cuda.steps", *CASES[name]]
            done = subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, check=True)
            row = json.loads(done.stdout)
            note = f" ({row['not_captured']})" if row["not_captured"] else ""
            print(
                f"| {name}{note} | {row['launches']} | {row['waits']} | {row['pageable']} | {row['cpu_ms']} "
                f"| {row['graph_nodes']} | {row['snapshot']['waits']}, {row['snapshot']['cpu_ms']} |",
                flush=True,
            )
            if row["violations"]:
                print(f"violations of {name}: {row['violations']}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
