"""What all tests of streamed images need."""

from __future__ import annotations

import pytest

from trainer.data.batches import stream


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the warning about long waits, which a busy machine would cause; the test of it sets its own limit."""
    monkeypatch.setattr(stream, "_LONG_WAIT_S", 3600.0)
