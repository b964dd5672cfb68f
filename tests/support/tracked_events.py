"""Events of a canned run, as trackers receive them."""

from __future__ import annotations

from trainer.run.log.result_events import CheckpointSaved, Evaluated, LayersMeasured, Steps
from trainer.run.log.run_events import Started

CLASSES = ["cat", "[red]dog[/]"]


def started() -> Started:
    return Started(
        classes=CLASSES, splits={"train": 64, "test": 8}, selection_split="test", fingerprint="f", model={}, device={},
        choices={}, epochs=2, steps_per_epoch=4, total_steps=8, planned_lr=[[], []], versions={},
    )  # fmt: skip


def steps(first: int, count: int = 2, loss: float | None = 1.0) -> Steps:
    return Steps(
        first_step=first, loss=[loss] * count, accuracy=[0.5] * count, lr=[0.1] * count, images=8 * count, seconds=0.5
    )


def saved(step: int) -> CheckpointSaved:
    return CheckpointSaved(step=step, path="x", size_bytes=1, sha256="", pinned=False, best=False, seconds=0.1)


def evaluated(step: int, *, best: bool = True) -> Evaluated:
    return Evaluated(
        split="test", epoch=step / 4, step=step, loss=0.7, accuracy=0.75, correct=[4, 2], counts=[4, 4], best=best
    )


def layers(step: int) -> LayersMeasured:
    return LayersMeasured(
        epoch=step / 4, step=step, names=["conv1", "fc"], parameters=[4, 4], weight_norms=[2.0, 1.0], weight_ranges=[1.0, 0.5],
        weights=[[1, 2, 1], [0, 4, 0]], gradient_norms=[None, 0.25], gradient_ranges=[None, 0.1], gradients=[[], [1, 1, 1]],
    )  # fmt: skip
