"""Explains a failure to the user in one line, and appends its traceback to the run's `log.txt`."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

from trainer.errors import R18Error, is_out_of_memory
from trainer.run.folder.run_dir import RunDir

T = TypeVar("T")


def explain(error: BaseException) -> str:
    """One line that says what went wrong and what to do."""
    if isinstance(error, R18Error):
        return str(error)
    text = " ".join(str(error).split())[:300]
    if is_out_of_memory(error):
        return (
            f"out of memory: {text}. During training, batches are already split as far as possible: use a smaller "
            f"data.image_size or another device. During evaluation, lower eval.batch_size (a resume can change it)"
        )
    return f"{type(error).__name__}: {text or 'no message'} (traceback in log.txt)"


def call_with_timeout(seconds: float, function: Callable[[], T], otherwise: T) -> T:
    """Result of a function that may hang, such as one that reads a disk that does not respond.

    It runs on another thread. `otherwise` is returned when it raises, or when it takes longer than `seconds`; the
    thread is then left behind.
    """
    answers: list[T] = []
    thread = threading.Thread(target=lambda: answers.append(function()), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no room for another thread
        return function()
    thread.join(seconds)
    return answers[0] if answers else otherwise


def log_traceback(run_dir: RunDir, error: BaseException) -> None:
    """Append a traceback to the run's `log.txt`."""
    text = "".join(traceback.format_exception(error))
    # The folder may be gone, or the disk full; the error itself is still published.
    with contextlib.suppress(OSError), run_dir.log.open("a", encoding="utf-8") as file:
        file.write(text)
