"""Compares the trainer's steps in many random configurations with the plain reference in `tests/reference`.

    python -m benchmarks.reference [--examples 3000] [--seed 0] [--convolution native|products]

Prints every configuration outside of the tolerance, and the largest deviations. Exits with 1 when there is one. Configurations
whose result depends on rounding (a ReLU with an input near 0) are only counted.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from random import Random

import torch
from tqdm import tqdm

from tests.reference.training_cases import random_case
from tests.reference.training_comparison import MUON, TOLERANCE, compared
from tests.reference.training_sides import WIDTHS
from trainer.model.conv import modules


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the first configuration")
    parser.add_argument("--convolution", choices=TOLERANCE, default="native")
    given = parser.parse_args()
    torch.set_num_threads(1)
    modules.WINOGRAD_CHANNELS = WIDTHS[0]  # Winograd's products already with the reference's few channels
    largest: dict[str, float] = {}
    undecided = faulty = 0
    for seed in tqdm(range(given.seed, given.seed + given.examples), unit="configuration"):
        case = random_case(Random(seed))
        comparison = compared(case, convolution=given.convolution)
        if not comparison.decided:
            undecided += 1
            continue
        faults = comparison.faults(TOLERANCE[given.convolution])
        if faults:
            faulty += 1
            tqdm.write(f"seed {seed}: {'; '.join(faults)}\n  {case}")
        for name, value in asdict(comparison.deviation).items():
            of_weights = comparison.muon and name in ("change", "average")
            largest[name] = max(largest.get(name, 0.0), value / (MUON if of_weights else 1.0) / comparison.steps**2)
    print(f"{given.examples:,} configurations: {undecided:,} not judged, {faulty:,} outside of the tolerance")
    print("largest relative deviations per step (Muon's divided by its amplification of rounding):")
    for name, value in largest.items():
        print(f"  {name:12s} {value:.1e}")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
