"""Checkpoints with few tensors and complete metadata."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.model.checkpoint import Checkpoint
from trainer.model.checkpoint_records import RunRecord, records_in
from trainer.training.snapshot import Snapshot

_REQUIRED: dict[str, Any] = {
    "run": "run", "config": {"train": {"epochs": 2}, "eval": {}}, "classes": ["a", "b"], "fingerprint": "f", "identity": {},
    "selection_split": "val", "mean": [0.5] * 3, "std": [0.25] * 3, "preprocess": {}, "choices": {}, "steps_per_epoch": 10,
    "step": 1, "epoch": 0, "epoch_step": 1, "epoch_sums": {}, "evaluation_due": False, "lr_edits": [], "best_accuracy": None,
    "best_step": -1, "last_evaluation": None,
}  # fmt: skip
"""Fields of every checkpoint, even the oldest."""


def checkpoint_of(tensors: dict[str, Tensor], **meta: Any) -> Checkpoint:
    """A checkpoint with these tensors; `meta` changes or adds fields."""
    return Checkpoint(tensors, *records_in(_REQUIRED | meta))


def ready(checkpoint: Checkpoint) -> Snapshot:
    """A snapshot that a writer can make this checkpoint of."""
    return Snapshot(checkpoint.tensors, checkpoint.run, checkpoint.state, None)


def run_record(**meta: Any) -> RunRecord:
    """A record of a run; `meta` changes or adds fields."""
    return checkpoint_of({}, **meta).run
