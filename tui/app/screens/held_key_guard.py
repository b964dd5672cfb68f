"""Distinguishes a key meant as an answer from one that is held, or that was pressed before its screen could be read."""

from __future__ import annotations

from time import monotonic

KEY_REPEAT_DELAY_S = 0.75  # longer than a keyboard waits before it repeats a held key (660 ms by X11's default)
READING_DELAY_S = 0.5  # time a person needs to see that a question has appeared


class HeldKeyGuard:
    """Time since a screen was shown, or since a key was last pressed too early."""

    def __init__(self) -> None:
        self._since = monotonic()

    def begin(self) -> None:
        self._since = monotonic()

    def is_over(self, seconds: float) -> bool:
        """Whether a key pressed now can be deliberate; one that is not restarts the wait, as a held key does."""
        now, since = monotonic(), self._since
        self._since = now
        return now - since >= seconds
