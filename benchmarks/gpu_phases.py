"""The phases of `benchmarks.gpu_proof`, each in a process of its own.

python -m benchmarks.gpu_phases [--device cuda] [--rehearsal] PHASE
python -m benchmarks.gpu_phases [--device cuda] train CONFIG RUNS KEY=VALUE ...
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tests.support.checkpoints import run_record
from trainer.config.loader import load_config
from trainer.model.device import choose_device
from trainer.run.log.event import Event
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import Evaluated, Steps
from trainer.run.log.run_events import Warned
from trainer.training import gpu_report
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer
from trainer.training.step_timing import set_up

PHASES = {
    "speed": (90, "batch 512 in one graph: 45,000-65,000 img/s native, 80,000-110,000 fused; kernel by kernel slower"),
    "kernels": (30, "convolutions first; batch norm and ReLU half of the time where not fused"),
    "memory": (30, "the step is repeated in two micro-batches; evaluation in smaller batches"),
    "snapshot and evaluation": (20, "snapshot <= 5 ms of the training thread; evaluation > 40,000 images/s"),
}
"""Seconds after which each phase is ended, and predictions for an H200."""

RUNS = {
    "cifar-fast": (45, "94 % with flip-TTA in <= 10 s of steps"),
    "cifar-fast run.seed=1": (45, "94 % with flip-TTA"),
    "cifar": (80, "94 % with flip-TTA in <= 30 s of steps"),
}
"""Runs of part b, each a configuration with settings."""


def main() -> int:
    """Run one phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=(*PHASES, "train"))
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearsal", action="store_true")
    given = parser.parse_args()
    if given.phase == "train":
        return train(given.device, *given.rest)
    device = choose_device(given.device)
    if given.phase == "speed":
        speed(device, rehearsal=given.rehearsal)
    elif given.phase == "kernels":
        kernels(device, rehearsal=given.rehearsal)
    elif given.phase == "memory":
        memory(device, rehearsal=given.rehearsal)
    else:
        snapshot_and_evaluation(device, rehearsal=given.rehearsal)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def speed(device: torch.device, *, rehearsal: bool) -> None:
    """Images per second of each kind of step."""
    small = {"batches": (16,), "seconds": 0.1} if rehearsal else {}
    for line in gpu_report.report(device, **small):  # type: ignore[arg-type]
        _say(line)


def kernels(device: torch.device, *, rehearsal: bool) -> None:
    """The twenty kernels that take longest, of steps without a graph, with each kind of batch norm."""
    for norm in ("native", "fused"):
        settings = [f"run.batch_norm={norm}", "run.precision=bf16", "run.channels_last=true", "run.cuda_graph=false"]
        settings += ["data.batch_size=16"] * rehearsal
        try:
            bench = set_up(load_config("cifar", settings).config, device)
        except Exception as error:  # noqa: BLE001 - such as no Triton: the other kind still counts
            _say(f"{norm}: {error}")
            continue
        activities = [ProfilerActivity.CUDA] if device.type == "cuda" else [ProfilerActivity.CPU]
        with profile(activities=activities) as found:
            for _ in range(1 if rehearsal else 10):
                bench.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
        order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        _say(f"{norm}:\n{found.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=70)}")


class _Reports(LoopCallbacks):
    def publish(self, event: Event) -> None:
        if isinstance(event, Warned):
            _say(event.message)


def _trainer(device: torch.device, *settings: str) -> Trainer:
    config = load_config("cifar", ["data.kind=digits", f"run.device={device}", "run.precision=bf16", *settings]).config
    trainer = build_trainer(config, Path("runs"), _Reports(), lambda *_: None, None).trainer
    trainer.train_step.prepare(0)
    return trainer


def _take_steps(trainer: Trainer, number: int) -> None:
    batches = (batch for epoch in range(100) for batch in trainer.batches.epoch(epoch, 0) if batch is not None)
    for _, batch in zip(range(number), batches, strict=False):
        trainer._take_step(batch, 0.01)
    trainer.drain()


def memory(device: torch.device, *, rehearsal: bool) -> None:
    """A step and an evaluation that do not fit are repeated in smaller parts."""
    if device.type != "cuda":
        _say("needs a GPU; `tests/null_cuda/test_memory.py` rehearses it")
        return
    trainer = _trainer(device, "data.batch_size=512", "eval.batch_size=1024", "run.cuda_graph=false")
    _take_steps(trainer, 1)
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(device).total_memory
    _say(f"peak of a step at batch 512: {peak / 2**30:.2f} GiB")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
    _take_steps(trainer, 3)
    trainer.evaluator.evaluate("test", trigger="key")
    _say(f"micro-batches: {trainer.train_step.micro_batches}")


def snapshot_and_evaluation(device: torch.device, *, rehearsal: bool) -> None:
    """Time of the training thread for a snapshot, and of an evaluation."""
    trainer = _trainer(device, "train.ema_decay=0.99", *["data.batch_size=32", "data.image_size=8"] * rehearsal)
    _take_steps(trainer, 2 if rehearsal else 20)
    for _ in range(3):
        begun = time.perf_counter()
        snapshot = trainer.state.snapshot(run_record())
        taken = time.perf_counter()
        snapshot.completed()
        _say(f"snapshot: {1e3 * (taken - begun):.1f} ms, on the CPU after {1e3 * (time.perf_counter() - begun):.0f} ms")
    split = "test" if rehearsal else "train"
    begun = time.perf_counter()
    trainer.evaluator.evaluate(split, trigger="key")
    rate = len(trainer.data.dataset.splits[split]) / (time.perf_counter() - begun)
    _say(f"evaluation: {rate:,.0f} images/s")


def train(device: str, config: str, runs: str, *settings: str) -> int:
    """Train a configuration to the end; prints accuracy and times from its log."""
    command = [sys.executable, "-m", "trainer", config, f"run.device={device}", *settings, "--runs-dir", runs]
    begun = time.perf_counter()
    code = subprocess.run(command, check=False).returncode
    whole_s = time.perf_counter() - begun
    newest = max(Path(runs).glob("*/events.jsonl"), key=lambda path: path.stat().st_mtime)
    events = [record.event for record in read_records(newest)]
    steps_s = sum(event.seconds for event in events if isinstance(event, Steps))
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    for evaluation in evaluations[-1:]:
        tested_s = sum(event.seconds for event in evaluations)
        _say(
            f"{evaluation.accuracy:.2%} plain, {evaluation.accuracy_tta or 0.0:.2%} flip-TTA after {steps_s:.1f} s of steps, "
            f"{tested_s:.1f} s of {len(evaluations)} evaluations and {whole_s - steps_s - tested_s:.1f} s of all else"
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
