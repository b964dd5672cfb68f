"""Tells a key that is meant as an answer from one that is held, or that was pressed before its screen could be read."""

from __future__ import annotations

from time import monotonic

HELD_KEY_S = 0.75
"""Longer than a keyboard waits before it repeats a key that is held (660 ms by X11's default)."""
UNEXPECTED_S = 0.5
"""Time in which a person sees that a question has come."""


class KeyRest:
    """The time since a screen was shown, or since a key was last pressed too early."""

    def __init__(self) -> None:
        self._since = monotonic()

    def begin(self) -> None:
        """Count from now on: the screen has just been shown."""
        self._since = monotonic()

    def is_over(self, seconds: float) -> bool:
        """Whether a key that is pressed now can be meant; one that is not begins the rest anew, as a held key does."""
        now, since = monotonic(), self._since
        self._since = now
        return now - since >= seconds
