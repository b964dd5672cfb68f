"""Textual's driver, for a process that is continued without having been stopped."""

from __future__ import annotations

import contextlib

from textual.drivers.linux_driver import LinuxDriver


class TerminalDriver(LinuxDriver):
    """Begins anew at SIGCONT, whoever stopped us.

    The kernel sends SIGCONT with every hang-up, a shell with every `fg`, and the launcher passes its own on. Textual's driver
    then starts a second time: two threads share the keys, and the raw mode that it finds is what it restores at the end.
    """

    _active = False

    def start_application_mode(self) -> None:
        """Take the terminal."""
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._active = True

    def stop_application_mode(self) -> None:
        """Give it back."""
        self._active = False
        super().stop_application_mode()

    def _sigcont_application(self, *_signal_and_frame: object) -> None:
        # Only asked for here: a signal may come while the queue of the thread that writes is locked.
        with contextlib.suppress(RuntimeError):  # the loop has just ended, and the dashboard with it
            self._loop.call_soon_threadsafe(self._begin_anew)

    def _begin_anew(self) -> None:
        if self._active:
            self.suspend_application_mode()
        elif not self._must_signal_resume:
            return  # the application is ending
        self._must_signal_resume = True
        self.resume_application_mode()
