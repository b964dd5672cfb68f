"""Textual's driver, for a process that is continued without having been stopped."""

from __future__ import annotations

from textual.drivers.linux_driver import LinuxDriver


class TerminalDriver(LinuxDriver):
    """Begins anew at SIGCONT, whoever stopped us.

    The kernel sends SIGCONT with every hang-up, a shell with every `fg`, and the launcher passes its own on. Textual's driver
    then starts a second time: two threads share the keys, and the raw mode that it finds is what it restores at the end.
    """

    def _sigcont_application(self, *signal_and_frame: object) -> None:
        if not self._must_signal_resume:
            self.suspend_application_mode()
            self._must_signal_resume = True
        super()._sigcont_application(*signal_and_frame)
