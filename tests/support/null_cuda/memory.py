"""Lets the stand-in's memory run out at one place of a training.

    python -m tests.support.null_cuda.memory step|capture|evaluation|snapshot

Prints JSON: what was reported, and whether training went on and the allocator is as before.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import run_record
from tests.support.null_cuda.stand_in import counts, limit_memory
from trainer.config.loader import load_config
from trainer.data.batches.batches import Batch
from trainer.run.log.event import Event
from trainer.run.log.run_events import Warned
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.cuda_graph import PLAIN_STEPS
from trainer.training.loop import Trainer

_SETTINGS = (
    "data.kind=digits", "data.batch_size=256", "data.drop_last=true", "run.device=cuda", "run.precision=bf16",
    "run.channels_last=true", "eval.batch_size=256", "train.ema_decay=0.9",
)  # fmt: skip
MIB = 2**20


class Training:
    """A trainer, one step at a time, and what it has reported."""

    def __init__(self, *settings: str) -> None:
        self.warnings: list[str] = []
        config = load_config("cifar", [*_SETTINGS, *settings]).config
        self.trainer: Trainer = build_trainer(
            config, Path("runs"), _Warnings(self.warnings), lambda *_: None, None
        ).trainer
        self.trainer.train_step.prepare(0)
        self.trainer.last_save = time.monotonic()
        self._batches = self._endless()

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from (batch for batch in self.trainer.batches.epoch(0, 0) if batch is not None)

    def steps(self, number: int) -> None:
        """Take steps; warnings are collected as the loop does."""
        for _ in range(number):
            self.trainer._take_step(next(self._batches), 0.01)
        self.trainer.metrics.forget()


class _Warnings(LoopCallbacks):
    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings

    def publish(self, event: Event) -> None:
        if isinstance(event, Warned):
            self._warnings.append(event.message)


def in_use() -> int:
    """Bytes that this process has taken from the device, without the allocator's cache."""
    gc.collect()
    torch.cuda.empty_cache()
    return counts(reset=False)["used bytes"]


def step() -> dict[str, Any]:
    """Only half of a batch fits."""
    training = Training("run.cuda_graph=false")
    training.steps(1)
    training.trainer.train_step.optimizer.zero_grad()
    at_rest = in_use()
    counts()
    training.steps(1)
    peak = counts()["peak bytes"]
    training.trainer.train_step.optimizer.zero_grad()
    limit_memory((at_rest + peak + in_use()) // 2 + 60 * MIB)
    training.steps(3)
    limit_memory(0)
    return {"warnings": training.warnings, "micro_batches": training.trainer.train_step.micro_batches}


def capture() -> dict[str, Any]:
    """Plain steps fit; a graph, which needs memory of its own, does not."""
    training = Training()
    training.steps(PLAIN_STEPS)
    limit_memory(counts(reset=False)["used bytes"] + 8 * MIB)
    training.steps(3)
    limit_memory(0)
    violations = [name for name in counts() if name.startswith("VIOLATION")]
    return {
        "warnings": training.warnings,
        "micro_batches": training.trainer.train_step.micro_batches,
        "violations": violations,
    }


def evaluation() -> dict[str, Any]:
    """A batch of an evaluation does not fit."""
    training = Training()
    training.steps(PLAIN_STEPS + 1)
    torch.cuda.empty_cache()
    limit_memory(counts(reset=False)["used bytes"] + 40 * MIB)
    training.trainer.evaluator.evaluate("test", trigger="key")
    limit_memory(0)
    return {"warnings": training.warnings}


def snapshot() -> dict[str, Any]:
    """A clone of the state does not fit."""
    training = Training()
    training.steps(PLAIN_STEPS + 1)
    torch.cuda.empty_cache()
    limit_memory(counts(reset=False)["used bytes"] + 8 * MIB)
    names = training.trainer.state.snapshot(run_record()).completed().tensors
    limit_memory(0)
    return {"warnings": training.warnings, "tensors": len(names)}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "step": step, "capture": capture, "evaluation": evaluation, "snapshot": snapshot,
}  # fmt: skip


def main(name: str) -> dict[str, Any]:
    """Run a case, then train on and look at the allocator."""
    found = CASES[name]()
    before = in_use()
    training = Training()
    training.steps(PLAIN_STEPS + 2)
    del training
    return found | {"kept_mib": (in_use() - before) // MIB}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
