"""The line that tells the keys of a screen that has no key bar of its own."""

from __future__ import annotations

from rich.text import Text


def key_line(*keys: tuple[str, str]) -> Text:
    """Keys and what they do, in order."""
    return Text.assemble(" ", *(part for key, word in keys for part in ((key, "bold"), (f" {word}   ", "dim"))))
