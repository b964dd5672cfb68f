"""Signals that ask a run to stop: the first one saves, a second one leaves at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from trainer.errors import EXIT_SIGHUP, EXIT_SIGINT, EXIT_SIGTERM

DOUBLED_S = 2.0
"""A signal that comes again within this time is the same one on another way, not a second request."""

SIGNAL_CODES = {signal.SIGINT: EXIT_SIGINT, signal.SIGTERM: EXIT_SIGTERM, signal.SIGHUP: EXIT_SIGHUP}
"""What the process exits with when a signal has stopped it and the state is saved."""


def install_stop_handlers(stop: Callable[[str, int], None], hang_up: Callable[[], None] | None = None) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into a stop at the next step; a second one leaves at once.

    A hang-up and a Ctrl-C that whoever started us wants ignored stay ignored.

    Args:
        stop: Called with the signal's name and the exit code; must be safe in a signal handler.
        hang_up: Called at SIGHUP instead, by a run that can go on without its terminal; must be safe there, too.
    """
    first_s: list[float] = []

    def handle(received: int, _frame: FrameType | None) -> None:
        code = SIGNAL_CODES[signal.Signals(received)]
        if first_s and (received == signal.SIGHUP or time.monotonic() - first_s[0] < DOUBLED_S):
            return  # schedulers signal the launcher and us, and the launcher passes its own on: that is one request
        if first_s:
            # By the signal itself: whoever started us sees that nothing was tidied up, the terminal included.
            signal.signal(received, signal.SIG_DFL)
            os.kill(os.getpid(), received)
        first_s.append(time.monotonic())
        stop(signal.Signals(received).name, code)

    for handled in SIGNAL_CODES:
        if not ignored_from_the_start(handled):
            on_signal = (lambda _number, _frame: hang_up()) if hang_up and handled is signal.SIGHUP else handle
            signal.signal(handled, on_signal)


def ignored_from_the_start(number: signal.Signals) -> bool:
    """Whether whoever started this process wants a signal ignored: `nohup` a hang-up, a shell's `&` in a script Ctrl-C."""
    return number in (signal.SIGHUP, signal.SIGINT) and signal.getsignal(number) is signal.SIG_IGN
