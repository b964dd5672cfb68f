"""Rules about single layers: dead layers, and layers with exploding gradients."""

from __future__ import annotations

import math
from bisect import bisect_left

from trainer.run.diagnosis.finding import Verdict
from trainer.run.log.event import number
from trainer.run.log.result_events import LayersMeasured
from trainer.run.view.run_view import RunView

DEAD = 0.9  # share of dead channels of a dead layer: in healthy runs, with weight decay, never as many are silent
_EXPLODING = 0.3  # relative change of a layer's norm by one step of plain SGD: about 0.001 is usual


def dead_layer(view: RunView) -> Verdict | None:
    """A layer with nearly all channels 0 for every image, at two evaluations in a row."""
    measured = view.last_evaluations(2)
    if len(measured) < 2:
        return None
    dead = [
        name for name, share in measured[-1].silent.items() if min(share, measured[0].silent.get(name, 0.0)) >= DEAD
    ]
    if not dead:
        return None
    return Verdict(
        kind="dead layer", level="warning", text=f"dead: {_listed(dead)}",
        evidence=f"{measured[-1].silent[dead[0]]:.0%} of its channels are 0 for all {view.selection_split} images checked",
        remedy="w shows the layers; a lower learning rate (l) or a longer warm-up keeps them alive",
    )  # fmt: skip


def exploding_layer(view: RunView) -> Verdict | None:
    """A layer whose norm single steps of SGD change by a large share, at two measurements in a row."""
    optimizer = view.config.get("optim", {}).get("name", "sgd")
    if optimizer != "sgd" or len(view.layers) < 2:
        return None
    before, now = (_changes(view, measured) for measured in view.layers[-2:])
    exploding = [name for name, share in now.items() if min(share, before.get(name, 0.0)) > _EXPLODING]
    if not exploding:
        return None
    return Verdict(
        kind="exploding layer", level="warning", text=f"exploding gradients: {_listed(exploding)}",
        evidence=f"one step changes its norm by {now[exploding[0]]:.0%}",
        remedy="l sets a lower learning rate; train.max_grad_norm limits them",
    )  # fmt: skip


def _changes(view: RunView, measured: LayersMeasured) -> dict[str, float]:
    """Learning rate times gradient norm, relative to each layer's weight norm; frozen layers are excluded."""
    at = bisect_left(view.lr.x, measured.step)
    rate = view.lr.y[at] if at < len(view.lr) else math.nan
    return {
        name: rate * number(gradient) / number(weight)
        for name, weight, gradient in zip(measured.names, measured.weight_norms, measured.gradient_norms, strict=True)
        if gradient is not None and number(weight) > 0
    }


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
