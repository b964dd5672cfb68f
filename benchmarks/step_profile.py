"""Time of a training step on a CPU by kind of work, from PyTorch's profiler.

    python -m benchmarks.step_profile [CONFIG] [--steps 20]

Matrix products are those of convolutions (`trainer/model/conv/`), of the classifier, and with Muon of the optimizer. Pixels are
random, and batches have at most 128 images, as in `r18-tui bench`. The profiler makes a step some per cent longer, so the median
without it is printed, too. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from trainer.config.loader import load_config
from trainer.host.process_tuning import tune_process
from trainer.training.autotune import describe
from trainer.training.step_timing import set_up

KINDS = {
    "convolutions by the library": ("aten::convolution_backward", "aten::mkldnn_convolution"),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "batch norm": ("aten::native_batch_norm",),
    "copies and casts": ("aten::copy_",),
    "optimizer": ("aten::_fused_sgd_", "Optimizer."),
    "pooling": ("aten::max_pool2d", "aten::adaptive_avg_pool", "aten::mean"),
    "rectifiers and sums": ("aten::threshold_backward", "aten::clamp_min", "aten::relu", "aten::add"),
    "norm of the gradients": ("aten::linalg_vector_norm",),
}
"""Prefixes of the names of operations, by kind of work."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="cifar-cpu-quick")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    tune_process()
    bench = set_up(load_config(arguments.config).config, torch.device("cpu"))
    plain = []
    for _ in range(arguments.steps):
        began = time.perf_counter()
        bench.step()
        plain.append(time.perf_counter() - began)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(arguments.steps):
            bench.step()
    ms: Counter[str] = Counter()
    for event in profiled.key_averages():
        ms[kind_of(event.key)] += event.self_cpu_time_total / 1e3 / arguments.steps
    whole = ms.total()
    print(f"{arguments.config}: {describe(bench.train_step.numerics)}, {len(bench.batch)} images a step, "
          f"{statistics.median(plain) * 1e3:.1f} ms, {whole:.1f} with the profiler")  # fmt: skip
    for name, duration in ms.most_common():
        print(f"{name:<28} {duration:6.1f} ms  {duration / whole:6.1%}")
    return 0


def kind_of(operation: str) -> str:
    """The kind of work of a profiled operation."""
    return next((kind for kind, beginnings in KINDS.items() if operation.startswith(beginnings)), "the rest")


if __name__ == "__main__":
    sys.exit(main())
