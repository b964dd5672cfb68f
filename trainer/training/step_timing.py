"""Times training steps of a configuration on random pixels, and the matrix products that bound them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainer.config.schema import Config
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.batches.batches import Batch
from trainer.host.progress import no_progress
from trainer.model.determinism import set_deterministic
from trainer.model.numerics import DTYPES, Numerics, allow_tf32
from trainer.model.resnet import MACS_PER_PIXEL, build_model, losses_of
from trainer.training.autotune import autotune_numerics
from trainer.training.cuda_graph import PLAIN_STEPS
from trainer.training.step import TrainStep, build_step

_CLASSES = 10
_PHASE_S = 0.7
_CPU_BATCH = 128
_WINDOW = 10  # calls


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measured speed of one configuration."""

    numerics: Numerics
    batch_size: int  # images per step; on a CPU at most 128
    step_s: float  # median step time
    phases_s: dict[str, float]  # augment, forward, backward and update, each measured by itself
    gflop: float  # GFLOP per step, counted from its multiply-adds

    @property
    def images_per_s(self) -> float:
        """Training images per second."""
        return self.batch_size / self.step_s

    @property
    def shares(self) -> dict[str, float]:
        """Share of each phase in the sum of all phases."""
        whole = sum(self.phases_s.values())
        return {name: seconds / whole for name, seconds in self.phases_s.items()}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A configuration's training step, ready to run on random pixels."""

    train_step: TrainStep
    augment: Augment
    batch: Batch
    epoch: int  # the last one: everything is trained, and images are the largest
    step: Callable[[], None]


def set_up(config: Config, device: torch.device, *, numerics: Numerics | None = None) -> Bench:
    """Build a step and take the first steps, in which a GPU's kernels are chosen.

    `numerics` may be those chosen before for the same image size and stem; None to choose them now.
    """
    set_deterministic(config.run.deterministic)
    batch = _batch(config, device)
    model = build_model(config.model, _CLASSES, config.run.seed).to(device)
    normalize = Normalize.of([0.5] * 3, [0.25] * 3, device)
    augment = Augment(config=config.data, normalize=normalize, seed=config.run.seed)
    if numerics is None:
        numerics, _ = autotune_numerics(config, model, augment, lambda: batch, no_progress, device=device)
    train_step = build_step(config, model, augment, numerics)
    train_step.prepare(0)
    epoch, metrics_3 = config.train.epochs - 1, torch.zeros(3, device=device)

    def step() -> None:
        train_step(batch, epoch=epoch, lr=config.optim.lr * 1e-3, metrics_3=metrics_3)

    for _ in range(PLAIN_STEPS + 1 if device.type == "cuda" else 1):
        step()
    return Bench(train_step=train_step, augment=augment, batch=batch, epoch=epoch, step=step)


def measure(config: Config, device: torch.device, *, numerics: Numerics | None = None, seconds: float = 5.0) -> Speed:
    """Time whole steps on random pixels for `seconds`, and then their phases, which take a little more."""
    bench = set_up(config, device, numerics=numerics)
    step_s = _median_s(bench.step, device, seconds)
    return Speed(
        numerics=bench.train_step.numerics,
        batch_size=len(bench.batch),
        step_s=step_s,
        phases_s=_phases(bench),
        gflop=6e-9 * MACS_PER_PIXEL[config.model.stem] * config.data.image_size**2 * len(bench.batch),
    )


def matrix_peak(device: torch.device, precision: str, *, seconds: float = 1.5) -> float:
    """GFLOP/s of the fastest of several square matrix products, each size timed for `seconds`."""
    allow_tf32(precision != "fp32")
    best = 0.0
    for size in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            best = max(best, 2e-9 * size**3 / _seconds(partial(torch.mm, a, b), device))
    return best


def copy_speed(device: torch.device, *, seconds: float = 1.5) -> float:
    """GB/s of reading and writing when a large tensor is copied on the device."""
    source = torch.zeros(1 << (28 if device.type != "cpu" else 24), dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2e-9 * source.nbytes / _median_s(lambda: target.copy_(source), device, seconds)


def _batch(config: Config, device: torch.device) -> Batch:
    size = config.data.batch_size if device.type != "cpu" else min(config.data.batch_size, _CPU_BATCH)
    generator = torch.Generator().manual_seed(0)
    side = config.data.image_size
    pixels = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=generator).to(device)
    rows = torch.arange(size, device=device)
    return Batch(pixels, rows, rows, rows, rows % _CLASSES, fixed_pixels=True)


def _phases(bench: Bench) -> dict[str, float]:
    """Seconds of each part of a step, launched kernel by kernel (no CUDA graph)."""
    batch, model, numerics = bench.batch, bench.train_step.model, bench.train_step.numerics
    device = batch.labels_N.device

    def augmented() -> Tensor:
        images_NCHW = bench.augment(batch.pixels_MHWC, batch.rows_N, batch.sample_ids_N, batch.positions_N, bench.epoch)
        return numerics.to_memory_format(images_NCHW)

    images_NCHW = augmented()

    def loss() -> Tensor:
        with numerics.autocast(device):
            logits_NK = model(images_NCHW)
        return losses_of(logits_NK, batch.labels_N, label_smoothing=0.0).mean()

    def forward_and_backward() -> None:
        model.zero_grad(set_to_none=True)
        loss().backward()

    phases = {
        "augment": _median_s(augmented, device, _PHASE_S),
        "forward": _median_s(loss, device, _PHASE_S),
        "both": _median_s(forward_and_backward, device, _PHASE_S),
        "update": _median_s(bench.train_step.optimizer.step, device, _PHASE_S),
    }
    phases["backward"] = max(phases.pop("both") - phases["forward"], 0.0)
    return phases


def _median_s(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        taken.append(_seconds(call, device))
    return statistics.median_high(taken)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds per call; on a GPU those of a window of calls, which are launched while earlier ones run, as in training."""
    if device.type == "cuda":
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        for _ in range(_WINDOW):
            call()
        ended.record()
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / 1e3 / _WINDOW
    began = time.perf_counter()
    call()
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - began
