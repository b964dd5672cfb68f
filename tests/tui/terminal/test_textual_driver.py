"""The thread that reads keys: it forwards keys, sleeps without input, and ends on request."""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from textual import events
from textual.app import App
from textual.message import Message

from tui.terminal.textual_driver import TerminalDriver


@dataclass
class Keyboard:
    """A driver whose keys come from a pipe.

    Attributes:
        typing: Descriptor of the pipe's end for typing.
        keys: Forwarded keys.
        looks: Number of times that the thread has gone to sleep.
    """

    driver: TerminalDriver
    typing: int
    keys: list[str] = field(default_factory=list)
    looks: int = 0

    def type(self, text: bytes) -> None:
        """Type keys."""
        os.write(self.typing, text)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; fail after 5 s."""
        end = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < end, self.keys
            time.sleep(0.005)


@pytest.fixture
async def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyboard]:  # type: ignore[misc]
    """A driver that reads keys until the test ends."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT)}
    reader, writer = os.pipe()
    driver = TerminalDriver(App())
    driver.fileno = reader
    board = Keyboard(driver, writer)
    select = selectors.SelectSelector.select

    def counted(self: selectors.SelectSelector, timeout: float | None = None) -> object:
        board.looks += 1
        return select(self, timeout)

    def take(message: Message) -> None:
        assert isinstance(message, events.Key)
        board.keys.append(message.key)

    monkeypatch.setattr(selectors.SelectSelector, "select", counted)
    monkeypatch.setattr(driver, "process_message", take)
    driver._wake_reader, driver._wake_writer = os.pipe()
    driver._reading = True
    driver._key_thread = thread = threading.Thread(target=driver.run_input_thread)
    thread.start()
    yield board
    driver.disable_input()
    thread.join(5)
    assert not thread.is_alive()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for descriptor in (reader, driver._wake_reader, driver._wake_writer):
        os.close(descriptor)


async def test_keys_are_forwarded_as_they_are_typed(keyboard: Keyboard) -> None:
    keyboard.type(b"a\x1b[A")
    keyboard.wait_for(lambda: keyboard.keys == ["a", "up"])
    keyboard.type(b"\xc3")
    time.sleep(0.05)
    keyboard.type(b"\xa9")
    keyboard.wait_for(lambda: len(keyboard.keys) == 3)
    assert keyboard.keys[2] == "é"
    keyboard.type(b"\xff")  # not a character, so not a key
    keyboard.type(b"b")
    keyboard.wait_for(lambda: keyboard.keys[3:] == ["b"])


async def test_a_single_escape_is_a_key(keyboard: Keyboard) -> None:
    keyboard.type(b"\x1b")
    keyboard.wait_for(lambda: keyboard.keys == ["escape"])
    keyboard.type(b"q")
    keyboard.wait_for(lambda: keyboard.keys == ["escape", "q"])


async def test_the_thread_sleeps_while_nothing_is_typed(keyboard: Keyboard) -> None:
    keyboard.type(b"a")
    keyboard.wait_for(lambda: keyboard.keys == ["a"])
    before = keyboard.looks
    time.sleep(0.5)
    assert keyboard.looks <= before + 1


async def test_the_thread_sleeps_after_the_end_of_input(keyboard: Keyboard) -> None:
    os.close(keyboard.typing)
    keyboard.wait_for(lambda: keyboard.looks >= 2)
    before = keyboard.looks
    time.sleep(0.3)
    assert keyboard.looks <= before + 1
