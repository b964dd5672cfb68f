"""Chooses precision, memory format, convolution and batch norm by timing a few real steps on a copy of the model.

bf16 is up to thirty times slower than fp32 on CPUs without hardware for it, and channels_last is slower on some; a guess
by name would be wrong somewhere. The choice is recorded for resumes, and remembered for later runs on this machine.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.config.freezing import frozen_stages
from trainer.config.schema import Config
from trainer.data.augment.augment import Augment
from trainer.data.batches.batches import Batch
from trainer.errors import DeviceError, is_out_of_memory
from trainer.host.progress import Progress
from trainer.model.device import free_cached_memory, has_tf32
from trainer.model.norm.fused import why_not_fused
from trainer.model.numerics import BatchNorm, Convolution, Numerics, Precision
from trainer.training.cuda_graph import PLAIN_STEPS
from trainer.training.step import build_step

_PROBE_SHARE = 8  # a candidate first runs on an eighth of a batch ...
_GIVE_UP_FACTOR = 2.0  # ... and is dropped when that takes this many times longer than the fastest candidate
_NEAR = 1.3  # candidates this close to the fastest are timed again, in turns: a machine may be slow for a moment
_LARGEST_WINDOW = 10  # most steps on a GPU between two readings of the clock ...
_WINDOW_S = 0.5  # ... and the seconds that these may take
_LIMIT_S = 8.0  # seconds after which nothing more is begun: the run waits
_ROUNDS = 3  # steps of each candidate in that second timing
_STEPS_TO_CAPTURE = PLAIN_STEPS + 1  # untimed steps on a CUDA device, so that the replay of a graph is timed
_IMAGES_ON_CPU = 64  # largest batch timed on a CPU: time per image stays the same, and the run waits for the trial
_LOSS_TOLERANCE = 0.1
"""Largest relative difference from the most exact precision's first loss at which another precision is trusted."""


@dataclass(frozen=True)
class _Timing:
    numerics: Numerics
    probe_s: float
    step_s: float
    loss: float


def autotune_numerics(
    config: Config,
    model: nn.Module,
    augment: Augment,
    first_batch: Callable[[], Batch],
    progress: Progress,
    *,
    device: torch.device,
) -> tuple[Numerics, dict[str, Any]]:
    """Use what is configured, and time what is `auto`.

    Returns the choice, and the milliseconds per step of each candidate (empty, without a call of `first_batch`, when
    nothing is timed). Those that run out of memory are dropped, and those for which there is no time; RuntimeError when
    none fits. `progress` may raise.
    """
    candidates = _candidates(config, device)
    if len(candidates) == 1:
        return candidates[0], {}
    batch = first_batch()
    if device.type == "cpu":
        batch = batch.micro_batches(max(1, len(batch) // _IMAGES_ON_CPU))[0]
    timings: list[_Timing] = []
    trials: dict[Numerics, _Trial] = {}
    too_large: Exception | None = None
    end = time.monotonic() + _LIMIT_S
    for number, numerics in enumerate(candidates):
        if timings and time.monotonic() > end:
            break
        alike = [timing.step_s for timing in timings if timing.numerics.precision == numerics.precision]
        if alike and min(alike) == math.inf:
            continue  # a precision without hardware is slow in every layout
        poll = functools.partial(progress, f"timing {describe(numerics)}", number / len(candidates))
        give_up_s = _GIVE_UP_FACTOR * min((t.probe_s for t in timings), default=math.inf)
        try:
            trials[numerics] = _Trial(config, model, augment, batch, numerics, poll)
            timing = trials[numerics].time(give_up_s=give_up_s)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Its frames would keep the copy that did not fit in memory.
            too_large = error.with_traceback(None)
            trials.pop(numerics, None)
            continue
        # A precision that changes the first loss is not trusted, however fast it is.
        if not timings or abs(timing.loss - timings[0].loss) <= _LOSS_TOLERANCE * abs(timings[0].loss):
            timings.append(timing)
        kept = _near_fastest(timings)
        trials = {numerics: trial for numerics, trial in trials.items() if numerics in kept}  # the memory of the others
    timings = _retime(timings, trials, end)
    trials.clear()
    if device.type == "cuda":
        # The trial's memory does not count as training's: neither its peak nor its cache.
        free_cached_memory()
        torch.cuda.reset_peak_memory_stats(device)
    if not timings and too_large is not None:
        raise too_large
    fastest = min(timings, key=lambda timing: timing.step_s)
    return fastest.numerics, {describe(t.numerics): round(t.step_s * 1e3, 1) for t in timings if t.step_s < math.inf}


def _retime(timings: list[_Timing], trials: dict[Numerics, _Trial], end: float) -> list[_Timing]:
    """Candidates close to the fastest, each with its shortest step after more steps in turns, begun before `end`."""
    close = _near_fastest(timings)
    if len(close) < 2:
        return timings
    seconds = {timing.numerics: timing.step_s for timing in timings}
    for _ in range(_ROUNDS):
        if time.monotonic() > end:
            break
        for numerics in close:
            seconds[numerics] = min(seconds[numerics], trials[numerics].step())
    return [dataclasses.replace(timing, step_s=seconds[timing.numerics]) for timing in timings]


def _near_fastest(timings: list[_Timing]) -> list[Numerics]:
    """Candidates that are not much slower than the fastest so far."""
    limit = _NEAR * min((timing.step_s for timing in timings), default=math.inf)
    return [timing.numerics for timing in timings if timing.step_s <= limit < math.inf]


def recorded_numerics(config: Config, choices: dict[str, Any], device: torch.device) -> Numerics:
    """Numerics that a run began with, for a resume; what was timed on another kind of device is not used."""
    # Older checkpoints lack later choices.
    fields = [field.name for field in dataclasses.fields(Numerics) if field.name in choices]
    numerics = Numerics(**{name: choices[name] for name in fields})
    if config.run.convolution == "auto" and device.type != "cpu":
        numerics = dataclasses.replace(numerics, convolution="native")
    if numerics.batch_norm == "fused" and why_not_fused(device):
        numerics = dataclasses.replace(numerics, batch_norm="native")
    return numerics


def describe(numerics: Numerics) -> str:
    """A candidate in words."""
    words = [numerics.precision, "channels_last" if numerics.channels_last else "contiguous"]
    words += ["products"] * (numerics.convolution == "products") + ["fused"] * (numerics.batch_norm == "fused")
    return " ".join(words)


class _Trial:
    """A few steps with one candidate, on a copy of the model."""

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        augment: Augment,
        batch: Batch,
        numerics: Numerics,
        poll: Callable[[], None],
    ) -> None:
        # Uncompiled: each candidate would take minutes.
        uncompiled = config.model_copy(update={"run": config.run.model_copy(update={"compile": "none"})})
        self._step = build_step(uncompiled, copy.deepcopy(model), augment, numerics)
        self._batch = batch
        self._numerics = numerics
        self._poll = poll
        self._window = 1  # steps between two readings of the clock
        self._metrics = torch.zeros(3, device=batch.labels_N.device)
        # The last epoch trains the most stages on the largest images.
        self._epoch = config.train.epochs - 1
        self._step.prepare(frozen_stages(config.model, self._epoch))

    def time(self, *, give_up_s: float) -> _Timing:
        """Time the candidate; `step_s` is infinite when even a small batch takes longer than `give_up_s`."""
        small = self._batch.micro_batches(max(1, min(_PROBE_SHARE, len(self._batch) // 8)))[0]
        _, loss = self._timed(small)  # at a rate of 0, so that weights and this loss do not depend on the timing
        probe_s, _ = self._timed(small)
        if probe_s > give_up_s:
            return _Timing(self._numerics, probe_s, math.inf, loss)
        for _ in range(_STEPS_TO_CAPTURE if self._metrics.is_cuda else 1):
            step_s, _ = self._timed(self._batch)
        if self._metrics.is_cuda:
            self._window = max(1, min(_LARGEST_WINDOW, int(_WINDOW_S / step_s)))
        return _Timing(self._numerics, probe_s, self.step(), loss)

    def step(self) -> float:
        """Seconds per step with the whole batch; on a GPU of several, which are launched ahead as in training."""
        return self._timed(self._batch, steps=self._window)[0]

    def _timed(self, batch: Batch, *, steps: int = 1) -> tuple[float, float]:
        self._poll()
        begun = time.perf_counter()
        for _ in range(steps):
            self._step(batch, epoch=self._epoch, lr=0.0, metrics_3=self._metrics)
        loss = float(self._metrics[0])  # waits for the device, so that whole steps are timed
        return (time.perf_counter() - begun) / steps, loss


def _candidates(config: Config, device: torch.device) -> list[Numerics]:
    tried = [config.run.precision] if config.run.precision != "auto" else precisions(device)
    if tried == ["tf32"] and not has_tf32(device):
        raise DeviceError("run.precision: tf32 needs an NVIDIA GPU from Ampere on; set run.precision=auto")
    layouts = [config.run.channels_last] if config.run.channels_last != "auto" else [True, False]
    first, *others = [
        Numerics(precision=precision, channels_last=bool(layout), convolution=convolution, batch_norm=norm)
        for layout in layouts
        for precision in tried
        for convolution in _convolutions(config, device, channels_last=bool(layout))
        for norm in _norms(config, device, channels_last=bool(layout))
    ]
    # The reference of the losses, then the likeliest, since there may be no time for all.
    return [first, *sorted(others, key=lambda other: (not other.channels_last, other.precision == first.precision))]


def _convolutions(config: Config, device: torch.device, *, channels_last: bool) -> list[Convolution]:
    """Convolutions to time. Only with channels last do the matrices already lie in memory as products need them."""
    if config.run.convolution != "auto":
        return [config.run.convolution]
    compiled = config.run.compile != "none"
    return ["native", "products"] if device.type == "cpu" and channels_last and not compiled else ["native"]


def _norms(config: Config, device: torch.device, *, channels_last: bool) -> list[BatchNorm]:
    """Norms to time: the fused ones are for channels last, and a compiler fuses by itself."""
    wanted = config.run.batch_norm
    if wanted == "auto":
        possible = (
            channels_last and config.run.compile == "none" and device.type == "cuda" and not why_not_fused(device)
        )
        return ["native", "fused"] if possible else ["native"]
    if wanted == "fused" and (reason := why_not_fused(device)):
        raise DeviceError(f"run.batch_norm: fused is not possible here: {reason}; set run.batch_norm=auto")
    return [wanted]


def precisions(device: torch.device) -> list[Precision]:
    """Precisions that may be fast on a device, the most exact first."""
    if device.type == "mps":
        return ["fp32"]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ["fp32", "fp16"]
    return ["tf32" if has_tf32(device) else "fp32", "bf16"]
