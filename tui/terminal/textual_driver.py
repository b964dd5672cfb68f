"""Textual's driver, for a process that may be continued without having been stopped, and that rests while nothing happens."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Iterator

from textual.constants import DISABLE_KITTY_KEY
from textual.drivers.linux_driver import LinuxDriver

from tui.terminal.key_input import KeyInput
from tui.terminal.terminal_modes import SWITCHED_OFF, switched_on

_AT_ONCE = 4096  # maximum number of bytes per read


class TerminalDriver(LinuxDriver):
    """A driver that restarts at SIGCONT, after any kind of stop, and waits for keys without waking up.

    The kernel sends SIGCONT with every hang-up, a shell with every `fg`, and the launcher passes its own on. Textual's driver
    would then start a second time: two threads share the keys, and the raw mode that it finds is what it restores at the end.
    """

    _active = False
    _silent = False
    _reading = False
    _wake_reader, _wake_writer = -1, -1

    def start_application_mode(self) -> None:
        if self._wake_reader < 0:
            self._wake_reader, self._wake_writer = os.pipe()
        self._reading = True
        self._writer_thread = None
        with self._without_its_own_modes():
            super().start_application_mode()  # type: ignore[no-untyped-call]
        if not self._can_write:
            return  # in the background of a shell, which continues us in the foreground
        self.write(switched_on(mouse=self._mouse, kitty_keys=not DISABLE_KITTY_KEY))
        self._request_terminal_sync_mode_support()
        self._active = True

    def stop_application_mode(self) -> None:
        """Give the terminal back, with nothing left on its alternate screen.

        If the screen was enlarged meanwhile, tmux rewraps its lines, and what is then too much stays in the scrollback.
        """
        if self._active and self._writer_thread is not None:
            self.write(f"\x1b[2J{SWITCHED_OFF}")
            # Before the terminal turns keys into signals again, which may end us during the last steps.
            self._writer_thread.stop()
        self._active = False
        with self._without_its_own_modes():
            super().stop_application_mode()

    @property
    def _can_write(self) -> bool:
        return self._writer_thread is not None

    def write(self, data: str) -> None:
        if not self._silent:
            super().write(data)

    @contextlib.contextmanager
    def _without_its_own_modes(self) -> Iterator[None]:
        """Drop the modes that Textual writes: `tui.terminal.terminal_modes` has those of the program, on and off in one list.

        Size reports in the input, with which the mouse is reported in pixels, are not among them: SIGWINCH reports the size, too.
        """
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def disable_input(self) -> None:
        """Wait for the thread that reads keys to end."""
        self._reading = False
        if self._wake_writer >= 0:
            os.write(self._wake_writer, b"!")
        super().disable_input()

    def run_input_thread(self) -> None:
        """Pass events on until the input is disabled or has ended; an error is passed to the application.

        Textual's own thread checks ten times a second whether to end, which is most of the cost of an idle screen, spins without
        a pause when the input has ended (textual#6690), and ends the application silently when it fails.
        """
        try:
            self._pass_on_events()
        except Exception as error:  # noqa: BLE001 - whatever it is, the application ends with it and reports it
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the application with it
                self._loop.call_soon_threadsafe(self._app._handle_exception, error)

    def _pass_on_events(self) -> None:
        keys = KeyInput()
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while self._reading:
                wait = None if keys.deadline is None else max(keys.deadline - time.monotonic(), 0.0)
                ready = [key.fd for key, _ in selector.select(wait)]
                if self._wake_reader in ready:
                    os.read(self._wake_reader, _AT_ONCE)
                if self.fileno in ready:
                    typed = self._read()
                    if typed == b"":
                        selector.unregister(self.fileno)  # the terminal has gone, as the application will notice
                    for event in keys.feed(typed or b"", time.monotonic()):
                        self.process_message(event)
                for event in keys.tick(time.monotonic()):
                    self.process_message(event)

    def _read(self) -> bytes | None:
        """Read typed bytes; empty at the end of the input, None if there is nothing yet after all."""
        try:
            return os.read(self.fileno, _AT_ONCE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _sigcont_application(self, *_signal_and_frame: object) -> None:
        # Only requested here: a signal may arrive while the queue of the writer thread is locked.
        with contextlib.suppress(RuntimeError):  # the loop has just ended, and the dashboard with it
            self._loop.call_soon_threadsafe(self._restart)

    def _restart(self) -> None:
        if self._active:
            self.suspend_application_mode()
        elif not self._must_signal_resume:
            return  # the application is ending
        self._must_signal_resume = True
        self.resume_application_mode()
