"""Speed of training on a device in a few lines, short enough to be pasted into an issue."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from trainer.config.loader import load_config
from trainer.errors import R18Error, first_line
from trainer.host.gpu import driver_version
from trainer.model.device import describe_device
from trainer.model.versions import software_versions
from trainer.training.autotune import describe, precisions
from trainer.training.step_timing import copy_speed, matrix_peak, measure

BATCHES = (512, 128)
_WAYS = {
    "one graph": "run.cuda_graph=true", "kernel by kernel": "run.cuda_graph=false", "one graph, Muon": "optim.name=muon",
}  # fmt: skip


def report(device: torch.device, *, batches: tuple[int, ...] = BATCHES, seconds: float = 2.0) -> Iterator[str]:
    """Lines, each when it is measured; every measurement takes about `seconds`. What fails is a line too."""
    versions = software_versions()
    yield f"{describe_device(device)['name']}, driver {driver_version()}, torch {versions['torch']}, CUDA {versions['cuda']}"
    precision = precisions(device)[-1]
    peak = matrix_peak(device, precision, seconds=seconds)
    yield f"matrix products: {peak / 1e3:,.1f} TFLOP/s in {precision}; copies: {copy_speed(device, seconds=seconds):,.0f} GB/s"
    for batch_size, norm, (way, setting) in itertools.product(batches, ("native", "fused"), _WAYS.items()):
        settings = [
            f"data.batch_size={batch_size}", f"run.precision={precision}", "run.channels_last=true", "run.convolution=native",
            f"run.batch_norm={norm}", setting,
        ]  # fmt: skip
        case = f"batch {batch_size}, {norm} batch norm, {way}"
        try:
            speed = measure(load_config("cifar", settings).config, device, seconds=seconds)
        except (R18Error, RuntimeError) as error:
            yield f"{case}: {first_line(error)}"
            continue
        used = speed.gflop / speed.step_s / peak
        yield f"{case}: {speed.images_per_s:,.0f} img/s, {used:.0%} of the peak ({describe(speed.numerics)})"
