"""A progress callback for tests."""

from __future__ import annotations


def quiet(_detail: str, _fraction: float | None) -> None:
    """Ignore progress."""
