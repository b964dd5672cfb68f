"""When readings of memory and device are published."""

from __future__ import annotations

import pytest

from trainer.session.system_monitor import _moved

BEFORE = {"process_bytes": 1_000_000.0, "cpu_pct": 90.0}


@pytest.mark.parametrize(
    ("now", "news"),
    [
        (BEFORE, False),
        (BEFORE | {"process_bytes": 1_015_000.0, "cpu_pct": 94.0}, False),
        (BEFORE | {"process_bytes": 1_030_000.0}, True),
        (BEFORE | {"cpu_pct": 84.0}, True),
        (BEFORE | {"power_w": 90.0}, True),
        ({"cpu_pct": 90.0}, True),
    ],
)
def test_what_has_hardly_moved_is_no_news(now: dict[str, float], news: bool) -> None:
    assert _moved(BEFORE, now) is news
