"""`bench`: measures the training speed of configurations and the parts of a step, and estimates the duration of a run.

Pixels are random numbers, so no data are needed; everything else is as in a run of the configuration. Decoding and saves
are not measured; evaluations are only part of the estimate.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from trainer.config.loader import load_config, shipped_names
from trainer.config.schema import Config
from trainer.errors import DeviceError
from trainer.host.process_tuning import tune_process
from trainer.host.standard_streams import write_out

if TYPE_CHECKING:
    import torch

    from trainer.model.numerics import Numerics
    from trainer.training.step_timing import Speed

IMAGES = {"digits": (1437, 360), "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000)}
"""Training and test images of the data sets of known size."""

_FORWARD_SHARE = 1 / 3  # share of a training step's multiply-adds that an evaluation needs per image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    parser.add_argument(
        "configs",
        metavar="CONFIG",
        nargs="*",
        help="YAML files, or names of shipped configurations (default: all of these)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument(
        "--gpu-report", action="store_true", help="only the speed of a GPU in a dozen lines, for an issue"
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="only forget the precisions that earlier runs chose by timing on this machine",
    )


def main(given: argparse.Namespace) -> int:
    """Measure and print one configuration after another."""
    # They import PyTorch: `--help` does not wait for it.
    from trainer.model.device import choose_device, describe_device
    from trainer.model.numerics import DTYPES
    from trainer.model.versions import software_versions
    from trainer.training import remembered_numerics
    from trainer.training.autotune import precisions
    from trainer.training.step_timing import matrix_peak, measure

    if given.forget:
        outcome = "forgotten" if remembered_numerics.forget() else "nothing is remembered"
        write_out(f"{remembered_numerics.path()}: {outcome}\n")
        return 0
    tune_process()
    if given.gpu_report:
        return _report(choose_device(given.device))
    configs = {name: load_config(name).config for name in given.configs or shipped_names()}
    device = choose_device(given.device)
    write_out(f"{describe_device(device)['name']}, torch {software_versions()['torch']}\n")
    asked_for = {config.run.precision for config in configs.values()} & DTYPES.keys()
    timed: list[str] = [*precisions(device), *sorted(asked_for)]
    peaks = {name: matrix_peak(device, name) for name in dict.fromkeys(timed)}
    write_out(
        "matrix products: " + ", ".join(f"{peak:,.0f} GFLOP/s in {name}" for name, peak in peaks.items()) + "\n\n"
    )
    write_out(
        f"{'configuration':<16}{'img/s':>8}  {'augment':>7} {'forward':>7} {'backward':>8} {'update':>6}  {'of peak':>7}  run\n"
    )
    chosen: dict[tuple[object, ...], Numerics] = {}
    for name, config in configs.items():
        sys.stderr.write(f"measuring {name} ...\n")
        run = config.run
        chosen_by = (run.precision, run.channels_last, run.convolution, run.batch_norm)
        like = (config.model.stem, config.data.image_size, *chosen_by)
        speed = measure(config, device, numerics=chosen.get(like))
        chosen[like] = speed.numerics
        write_out(_line(name, config, speed, peaks) + "\n")
    return 0


def _report(device: torch.device) -> int:
    from trainer.training.gpu_report import report  # imports PyTorch

    if device.type == "cpu":
        raise DeviceError("--gpu-report: this machine has no GPU that torch can use; r18-tui bench measures a CPU")
    for line in report(device):
        write_out(line + "\n")
    return 0


def run_s(config: Config, speed: Speed) -> float | None:
    """Estimated seconds of a whole run with evaluations; None if the number of images is not known."""
    if config.data.kind not in IMAGES:
        return None
    train, test = IMAGES[config.data.kind]
    pixels = [(config.data.size_in(epoch) / config.data.image_size) ** 2 for epoch in range(config.train.epochs)]
    evaluations = -(-config.train.epochs // config.eval.every_epochs) * (2 if config.eval.tta == "flip" else 1)
    return (sum(pixels) * train + evaluations * test * _FORWARD_SHARE) / speed.images_per_s


def _line(name: str, config: Config, speed: Speed, peaks: dict[str, float]) -> str:
    from trainer.training.autotune import describe  # imports PyTorch

    shares = speed.shares
    used = speed.gflop / speed.step_s / peaks[speed.numerics.precision]
    seconds = run_s(config, speed)
    rate = speed.images_per_s
    took = f"{1000 / rate:,.1f} s per epoch of 1,000 images" if seconds is None else _duration(seconds)
    return (
        f"{name:<16}{rate:>8,.0f}  {shares['augment']:>7.0%} {shares['forward']:>7.0%} {shares['backward']:>8.0%} "
        f"{shares['update']:>6.0%}  {used:>7.0%}  {took} ({describe(speed.numerics)})"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
