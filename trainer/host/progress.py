"""Progress reports of long-running work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

Progress = Callable[[str, float | None], None]
"""Called with the current activity and its progress, 0 to 1 (None if unknown); may raise to cancel."""


def no_progress(_detail: str, _fraction: float | None) -> None:
    """Ignore reports of progress."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a progress bar on standard error, if that is a terminal."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    bars: dict[str, tqdm[NoReturn]] = {}

    def show(detail: str, fraction: float | None) -> None:
        if detail not in bars:
            close()
            bars[detail] = tqdm(total=1.0, desc=detail, bar_format=form, file=sys.stderr, disable=None, leave=False)
        if fraction is not None:
            bars[detail].n = min(fraction, 1.0)
            bars[detail].refresh()

    def close() -> None:
        for bar in bars.values():
            bar.close()
        bars.clear()

    try:
        yield show
    finally:
        close()
