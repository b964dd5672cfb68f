"""Diagnoses a run from its log: few verdicts, each with its evidence and a remedy.

`tests/trainer/run/test_diagnose.py` checks each rule on a run that has the fault and on healthy runs;
`benchmarks/verdicts.py` does so with trained runs.
"""

from __future__ import annotations

from collections.abc import Callable

from trainer.run.diagnosis import class_rules, layer_rules, loss_rules, resource_rules
from trainer.run.diagnosis.finding import Verdict
from trainer.run.status import RunState
from trainer.run.view.run_view import RunView

_LEVELS = ("error", "warning", "info")

_RULES: tuple[Callable[[RunView], Verdict | None], ...] = (
    loss_rules.not_finite, loss_rules.loss_rising, loss_rules.loss_stuck, loss_rules.overfitting,
    layer_rules.exploding_layer, layer_rules.dead_layer, class_rules.labels_swapped, class_rules.class_not_learnt,
    resource_rules.data_bound, resource_rules.memory_full, resource_rules.memory_grows, class_rules.selected_on_test,
)  # fmt: skip

_ALWAYS = (resource_rules.lines_skipped,)  # also before the first step, and for a failed run


def verdicts(view: RunView) -> list[Verdict]:
    """All current verdicts on a run, the worst first."""
    quiet = view.started is None or view.state in (RunState.FAILED, RunState.LOADING, RunState.PREPARING)
    found = [verdict for rule in (_ALWAYS if quiet else (*_ALWAYS, *_RULES)) if (verdict := rule(view)) is not None]
    return sorted(found, key=lambda verdict: _LEVELS.index(verdict.level))
