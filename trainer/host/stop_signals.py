"""Handles signals that ask a run to stop or to save: the first stop saves, a second one exits at once."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import Literal, get_args

from trainer.errors import EXIT_SIGHUP, EXIT_SIGINT, EXIT_SIGTERM

DOUBLED_S = 2.0  # a signal repeated within this time is the same request, received by another path
SIGNAL_CODES = {signal.SIGINT: EXIT_SIGINT, signal.SIGTERM: EXIT_SIGTERM, signal.SIGHUP: EXIT_SIGHUP}

WarningSignal = Literal["SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR", "SIGALRM", "SIGVTALRM"]
"""Signals that announce an end: Slurm, LSF and Grid Engine send the first three, a UPS SIGPWR, `alarm` the timers' two.

Not SIGQUIT, which ends at once on purpose; SIGPROF and SIGIO, which reach only programs that request them; SIGPIPE and
SIGXFSZ, which Python ignores, so that the write fails instead."""

WARNINGS: dict[str, signal.Signals] = {
    name: getattr(signal, name) for name in get_args(WarningSignal) if hasattr(signal, name)
}


def leave_interrupts_to_the_system() -> None:
    """Exit at once on ctrl+c after the work is done: during Python's cleanup it would print a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def ignore_warnings() -> None:
    """Ignore warning signals until there is a run to save, in child processes too. Handlers from before Python stay."""
    for number in WARNINGS.values():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)


def ignore_stop_signals() -> None:
    """Ignore every signal that the trainer handles for this process, such as a data worker or a further rank."""
    for number in (*SIGNAL_CODES, *WARNINGS.values()):
        signal.signal(number, signal.SIG_IGN)


def install_stop_handlers(
    stop: Callable[[str, int], None],
    hang_up: Callable[[], None] | None = None,
    *,
    save: Callable[[str], None] = lambda _name: None,
    stop_on: Collection[str] = (),
) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into a stop at the next step; a second one exits at once. Warning signals save.

    SIGINT and SIGHUP stay ignored if the parent process had them ignored. `stop` gets a signal's name and exit code,
    `save` the name of a warning signal; `hang_up` replaces `stop` at SIGHUP, for a run that can continue without its
    terminal. All three must be safe in a signal handler. Warning signals named in `stop_on` stop the run.
    """
    requests = _Requests(stop, save, stop_on)
    for handled in SIGNAL_CODES:
        if not ignored_from_the_start(handled):
            on_signal = (lambda _number, _frame: hang_up()) if hang_up and handled is signal.SIGHUP else requests.asked
            signal.signal(handled, on_signal)
    for number in WARNINGS.values():
        if signal.getsignal(number) is not None:
            signal.signal(number, requests.warned)


class _Requests:
    """Records the received signals. Its methods are signal handlers."""

    def __init__(self, stop: Callable[[str, int], None], save: Callable[[str], None], stop_on: Collection[str]) -> None:
        self._stop, self._save, self._stop_on = stop, save, stop_on
        self._first_s: float | None = None
        self._saved_s = -math.inf
        self._announced = False

    def asked(self, received: int, _frame: FrameType | None) -> None:
        """Handle SIGINT, SIGTERM or SIGHUP."""
        now = time.monotonic()
        if self._first_s is not None:
            if received == signal.SIGHUP or now - self._first_s < DOUBLED_S:
                return  # schedulers signal both launcher and ranks, and the launcher forwards its own: that is one request
            # Exit by the signal itself: the parent then sees that nothing was cleaned up, the terminal included.
            signal.signal(received, signal.SIG_DFL)
            os.kill(os.getpid(), received)
        self._first_s = now
        if not self._announced:  # otherwise a warning has already announced the end, and the last save is under way
            self._stop(signal.Signals(received).name, SIGNAL_CODES[signal.Signals(received)])

    def warned(self, received: int, _frame: FrameType | None) -> None:
        """Handle a warning signal. None of them exits at once: SIGXCPU is repeated every second."""
        name, now = signal.Signals(received).name, time.monotonic()
        if name in self._stop_on:
            if self._first_s is None and not self._announced:
                self._announced = True
                self._stop(name, 128 + received)
        elif now - self._saved_s >= DOUBLED_S:
            self._saved_s = now
            self._save(name)


def ignored_from_the_start(number: signal.Signals) -> bool:
    """Whether the parent process had a signal ignored: `nohup` ignores SIGHUP, a shell's `&` in a script SIGINT."""
    return number in (signal.SIGHUP, signal.SIGINT) and signal.getsignal(number) is signal.SIG_IGN
