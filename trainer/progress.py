"""How long-running work says what it does."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with what is being done and how much of it, 0 to 1 (None where that is not known); may raise to cancel."""
