"""Readings of memory and device are published when they change noticeably."""

from __future__ import annotations

import pytest

from trainer.session.system_monitor import _moved

BEFORE = {"process_bytes": 1_000_000.0, "cpu_pct": 90.0}


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (BEFORE, False),
        (BEFORE | {"process_bytes": 1_015_000.0, "cpu_pct": 94.0}, False),
        (BEFORE | {"process_bytes": 1_030_000.0}, True),
        (BEFORE | {"cpu_pct": 84.0}, True),
        (BEFORE | {"power_w": 90.0}, True),
        ({"cpu_pct": 90.0}, True),
    ],
)
def test_small_changes_of_readings_are_not_published(now: dict[str, float], changed: bool) -> None:
    assert _moved(BEFORE, now) is changed
