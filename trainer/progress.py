"""How long-running work says what it does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float | None], None]
"""Called with what is being done and how much of it, 0 to 1 (None where that is not known); may raise to cancel."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error while commands work; nothing where that is no terminal."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    bar: tqdm[None] | None = None
    shown = ""

    def show(detail: str, fraction: float | None) -> None:
        nonlocal bar, shown
        if bar is None or shown != detail:
            shown = detail
            if bar is not None:
                bar.close()
            bar = tqdm(total=1.0, desc=detail, bar_format=form, file=sys.stderr, disable=None, leave=False)
        if fraction is not None:
            bar.n = min(fraction, 1.0)
            bar.refresh()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
