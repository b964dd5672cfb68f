"""The choice of the best checkpoint, compared with the documented rule written as a sort."""

from __future__ import annotations

import math
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from trainer.training.best_checkpoint import BestCheckpoint

By = Literal["accuracy", "loss"]
results = st.lists(
    st.tuples(st.sampled_from([0.2, 0.5, 0.8]), st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf])),
    min_size=1,
    max_size=9,
)


@given(results=results, by=st.sampled_from(["accuracy", "loss"]))
def test_the_best_is_the_first_of_the_best_finite_results(results: list[tuple[float, float]], by: By) -> None:
    """By accuracy, then by lower loss; or by loss alone."""
    best = BestCheckpoint()
    answers = [best.update(step, accuracy, loss, by) for step, (accuracy, loss) in enumerate(results, 1)]
    finite = [
        (accuracy if by == "accuracy" else 0.0, -loss, -step)
        for step, (accuracy, loss) in enumerate(results, 1)
        if math.isfinite(loss)
    ]
    expected = -max(finite)[2] if finite else -1
    assert best.step == expected
    assert best.evaluated_step == len(results)
    if finite:
        assert (best.accuracy, best.loss) == results[expected - 1]
        assert answers[expected - 1]
        assert not any(answers[expected:])


@given(results=results, by=st.sampled_from(["accuracy", "loss"]))
def test_patience_counts_from_the_last_strict_improvement(results: list[tuple[float, float]], by: By) -> None:
    best, improved, highest = BestCheckpoint(), -1, -math.inf
    for step, (accuracy, loss) in enumerate(results, 1):
        value = accuracy if by == "accuracy" else -loss
        if math.isfinite(loss) and value > highest:
            improved, highest = step, value
        best.update(step, accuracy, loss, by)
    assert best.improved_step == improved
    waited = len(results) - improved
    assert best.is_stalled(waited, not_before=-1) == (improved > 0)
    assert not best.is_stalled(waited + 1, not_before=-1)
    assert not best.is_stalled(waited, not_before=improved + 1)


def test_restarted_patience_counts_from_the_newest_evaluation() -> None:
    best = BestCheckpoint(step=4, accuracy=0.5, improved_step=4, evaluated_step=20)
    assert best.is_stalled(16, not_before=-1)
    best.restart_patience()
    assert not best.is_stalled(1, not_before=-1)
    never = BestCheckpoint()
    never.restart_patience()
    assert never == BestCheckpoint()


def test_any_result_replaces_a_forgotten_best() -> None:
    best = BestCheckpoint()
    best.update(4, 0.9, 0.1, "accuracy")
    best.tested_step = 4
    best.forget()
    assert best == BestCheckpoint(evaluated_step=4, tested_step=4)
    assert best.update(6, 0.2, 2.0, "accuracy")
