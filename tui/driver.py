"""Textual's driver, for a process that is continued without having been stopped, and that rests while nothing happens."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

_MAYBE_ESCAPE_S = 0.02
"""Between two looks at whether an escape stays alone, and is a key, or goes on as the first byte of another."""
_AT_ONCE = 4096
"""Bytes."""


class TerminalDriver(LinuxDriver):
    """Begins anew at SIGCONT, whoever stopped us, and waits for keys without waking up.

    The kernel sends SIGCONT with every hang-up, a shell with every `fg`, and the launcher passes its own on. Textual's driver
    then starts a second time: two threads share the keys, and the raw mode that it finds is what it restores at the end.
    """

    _active = False
    _reading = False
    _wake_reader, _wake_writer = -1, -1

    def start_application_mode(self) -> None:
        """Take the terminal."""
        if self._wake_reader < 0:
            self._wake_reader, self._wake_writer = os.pipe()
        self._reading = True
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._active = True

    def stop_application_mode(self) -> None:
        """Give it back, with nothing left on its alternate screen.

        Of one that was made larger meanwhile tmux breaks the lines anew, and what then is too much stays in the scrollback.
        """
        if self._active:
            self.write("\x1b[2J")
        self._active = False
        super().stop_application_mode()

    def disable_input(self) -> None:
        """Wait for the thread that reads keys to end."""
        self._reading = False
        if self._wake_writer >= 0:
            os.write(self._wake_writer, b"!")
        super().disable_input()

    def run_input_thread(self) -> None:
        """Pass keys on until the input is disabled or has ended.

        Textual's own thread looks ten times a second whether it is to end, which is most of what a screen costs on which nothing
        happens, and turns without a rest when the input has ended (textual#6690).
        """
        parser = XTermParser(self._debug)
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while self._reading:
                undecided = parser._timeout_time is not None
                ready = [key.fd for key, _ in selector.select(_MAYBE_ESCAPE_S if undecided else None)]
                if self._wake_reader in ready:
                    os.read(self._wake_reader, _AT_ONCE)
                if self.fileno in ready:
                    typed = self._read()
                    if typed == b"":
                        selector.unregister(self.fileno)  # the terminal has gone, as the application will see
                    text = decode(typed or b"")
                    for event in parser.feed(text) if text else ():
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)

    def _read(self) -> bytes | None:
        """What was typed; empty at the end of the input, None where there is nothing yet after all."""
        try:
            return os.read(self.fileno, _AT_ONCE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

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
