"""Takes training steps on the stand-in and counts what the CPU does for each.

    python -m tests.support.null_cuda.steps CONFIG [KEY=VALUE ...]

Prints JSON, per step: `launches` outside of a CUDA graph, `waits`, `pageable` copies, `cpu_ms` of the training thread without the
driver's share; and `graph_nodes`, `violations` of the rules of capture, and the same of one snapshot of the state.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.checkpoints import run_record
from tests.support.null_cuda.stand_in import counts
from trainer.config.loader import load_config
from trainer.data.batches.batches import Batch
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.cuda_graph import PLAIN_STEPS
from trainer.training.loop import Trainer

STEPS = 12
_SETTINGS = (
    "data.kind=digits", "data.batch_size=64", "run.device=cuda", "run.channels_last=true", "run.convolution=native",
)  # fmt: skip


def main(name: str, settings: list[str]) -> dict[str, Any]:
    """Count."""
    config = load_config(name, [*_SETTINGS, *settings]).config
    if config.run.precision == "auto":
        config = load_config(name, [*_SETTINGS, "run.precision=bf16", *settings]).config
    trainer = build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    batches = _batches(trainer)
    _take(trainer, itertools.islice(batches, PLAIN_STEPS + 6))
    captured = counts()
    begun = time.thread_time()
    _take(trainer, itertools.islice(batches, STEPS))
    cpu_s, per_step = time.thread_time() - begun, counts()
    begun = time.thread_time()
    snapshot = trainer.state.snapshot(run_record())
    snapshot_s, of_snapshot = time.thread_time() - begun, counts()
    snapshot.completed()
    return {
        "graph_nodes": captured.get("graph nodes", 0),
        "not_captured": trainer.train_step.not_captured or "; ".join(trainer.train_step.remarks),
        "violations": {name: count for name, count in captured.items() if name.startswith(("VIOLATION", "WARNING"))},
        **_summary(per_step, STEPS), "cpu_ms": round(1e3 * cpu_s / STEPS, 3),
        "snapshot": _summary(of_snapshot, 1) | {"cpu_ms": round(1e3 * snapshot_s, 2)},
    }  # fmt: skip


def _batches(trainer: Trainer) -> Iterator[Batch]:
    """Whole batches, in order, without end."""
    while True:
        for batch in trainer.batches.epoch(trainer.state.epoch, 0):
            if batch is not None and len(batch) == trainer.config.data.batch_size:
                yield batch


def _take(trainer: Trainer, batches: Iterator[Batch]) -> None:
    trainer.train_step.prepare(trainer.frozen_now)
    for batch in batches:
        slot = trainer.metrics.reserve_slot(1, 0.01, len(batch))
        trainer.train_step(batch, epoch=trainer.config.train.epochs - 1, lr=0.01, metrics_3=slot)
        if trainer.state.ema is not None:
            trainer.state.ema.update(1)
    trainer.metrics.forget()


def _summary(found: dict[str, int], steps: int) -> dict[str, float]:
    def total(*words: str) -> float:
        chosen = [count for name, count in found.items() if any(word in name for word in words)]
        return round(sum(chosen) / steps, 1)

    found = {name: count for name, count in found.items() if not name.startswith("captured") and "bytes" not in name}
    return {
        "launches": total("kernel", "cublas", "cudnn", "memset", "memcpyAsync D2D"),
        "uploads": total("H2D"),
        "waits": total("SYNC"),
        "pageable": total("pageable"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2:])) + "\n")
