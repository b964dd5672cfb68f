"""A GPU whose memory runs out: training goes on as the documents promise, and the allocator is as before."""

from __future__ import annotations

import pytest

from tests.null_cuda.conftest import OnStandIn

SPLIT = "out of memory at step 1: repeated. Batches are now split into 2 micro-batches; batch norm sees 128 images"
PLAIN = "steps are computed kernel by kernel: no CUDA graph: it does not fit in memory"


@pytest.mark.parametrize(
    ("where", "warning", "micro_batches"), [("step", SPLIT, 2), ("capture", PLAIN, 1)], ids=["step", "capture"]
)
def test_a_step_that_does_not_fit_is_repeated(
    on_stand_in: OnStandIn, where: str, warning: str, micro_batches: int
) -> None:
    found = on_stand_in("tests.support.null_cuda.memory", where)
    assert found["warnings"] == [warning]
    assert found["micro_batches"] == micro_batches
    assert found.get("violations", []) == []
    assert found["kept_mib"] == 0


def test_an_evaluation_that_does_not_fit_is_repeated_in_smaller_batches(on_stand_in: OnStandIn) -> None:
    found = on_stand_in("tests.support.null_cuda.memory", "evaluation")
    assert len(found["warnings"]) > 1
    for halvings, warning in enumerate(found["warnings"], 1):
        assert warning.endswith(f"Evaluations now use {256 // 2**halvings} images at a time")
    assert found["kept_mib"] == 0


def test_a_snapshot_that_does_not_fit_on_the_device_is_copied_at_once(on_stand_in: OnStandIn) -> None:
    found = on_stand_in("tests.support.null_cuda.memory", "snapshot")
    assert found == {"warnings": [], "tensors": 306, "kept_mib": 0}
