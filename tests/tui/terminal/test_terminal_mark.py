"""Marks of terminals in use, by which the terminal of a killed program is restored."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tui.terminal import terminal_mark
from tui.terminal.terminal_mark import TerminalMark, restore_after_a_kill
from tui.terminal.terminal_modes import RESTORED


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal, the user's first; marks are in the test's folder."""
    monkeypatch.setattr(terminal_mark, "private_folder", lambda: tmp_path)
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def kill_owner(mark: TerminalMark) -> None:
    """Close the mark's file and nothing else, as the kernel does when it kills a program."""
    os.close(mark._file)


def test_the_terminal_of_a_killed_program_is_restored_once(terminal: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    kill_owner(TerminalMark(theirs))
    raw = termios.tcgetattr(theirs)
    raw[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(theirs, termios.TCSANOW, raw)
    assert restore_after_a_kill(theirs)
    assert termios.tcgetattr(theirs) == before
    assert os.read(ours, 4096) == RESTORED.encode()
    assert not restore_after_a_kill(theirs)
    assert not list(tmp_path.iterdir())


def test_a_terminal_in_use_or_restored_is_left_alone(terminal: tuple[int, int]) -> None:
    mark = TerminalMark(terminal[1])
    assert not restore_after_a_kill(terminal[1]), "the owner lives"
    mark.remove()
    assert not restore_after_a_kill(terminal[1])


def test_another_terminal_with_the_same_number_is_left_alone(terminal: tuple[int, int], tmp_path: Path) -> None:
    kill_owner(TerminalMark(terminal[1]))
    (mark,) = tmp_path.iterdir()
    os.utime(mark, (0, 0))
    assert not restore_after_a_kill(terminal[1])
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"null", b"[1,2", b'[0,0,0,0,0,0,["a"]]'])
def test_a_damaged_mark_is_removed(terminal: tuple[int, int], tmp_path: Path, content: bytes) -> None:
    kill_owner(TerminalMark(terminal[1]))
    (mark,) = tmp_path.iterdir()
    mark.write_bytes(content)
    restore_after_a_kill(terminal[1])
    assert not mark.exists()


def test_a_file_has_no_mark(tmp_path: Path) -> None:
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    TerminalMark(file).remove()
    assert not restore_after_a_kill(file)
    os.close(file)


def test_a_background_job_leaves_the_terminal_alone(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be stopped for changing the terminal; the next program in the foreground restores it."""
    kill_owner(TerminalMark(terminal[1]))
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: os.getpgrp() + 1)
    assert not restore_after_a_kill(terminal[1])
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: os.getpgrp())
    assert restore_after_a_kill(terminal[1])
