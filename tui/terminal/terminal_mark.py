"""Records that a terminal is taken over, so that the next program there restores it if this one is killed.

A launcher restores the terminal of a dashboard that dies. `attach`, `show` and `runs` have none, and a launcher may be killed
with its child. The mark is a locked file in the user's private folder, named after the terminal: the lock goes with its owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import termios
from pathlib import Path
from typing import Any

from trainer.host.private_folder import private_folder
from tui.terminal.terminal_modes import RESTORED


class TerminalMark:
    """The mark of a terminal that this process takes over. If it cannot be made, it is omitted: it is only a safeguard."""

    def __init__(self, fd: int) -> None:
        """Mark a terminal as taken, while its settings are still those of the shell."""
        self._file = -1
        self._path: Path | None = None
        with contextlib.suppress(OSError, termios.error, TypeError):
            settings: Any = termios.tcgetattr(fd)
            settings[6] = [code.decode("latin-1") if isinstance(code, bytes) else code for code in settings[6]]
            path = _path_of(fd)
            # Not inherited by other programs, which would keep the lock.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.write(self._file, json.dumps(settings).encode())
            self._path = path

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._path = -1, None


def restore_after_a_kill(fd: int = 1) -> bool:
    """Restore a terminal that a killed program of ours left taken over; returns whether there was one."""
    try:
        path = _path_of(fd)
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except (OSError, TypeError):
        return False  # no terminal, or no program was killed there
    if in_background(fd):
        os.close(file)
        return False  # another program has the terminal, and setting it would stop us
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        marked_at, settings = os.fstat(file).st_mtime, os.read(file, 65536)
        path.unlink(missing_ok=True)
        if os.fstat(fd).st_ctime > marked_at:
            return False  # another terminal of the same number
        os.write(fd, RESTORED.encode())
        attributes = json.loads(settings)
        attributes[6] = [code.encode("latin-1") if isinstance(code, str) else code for code in attributes[6]]
        termios.tcsetattr(fd, termios.TCSADRAIN, attributes)
    except (OSError, termios.error, ValueError, TypeError, IndexError):
        return False  # its owner is alive, or the mark is incomplete
    finally:
        os.close(file)
    return True


def in_background(fd: int) -> bool:
    """Whether the terminal of our session has been given to another job."""
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:
        return False  # not the terminal of our session, so there is no job control to respect


def _path_of(fd: int) -> Path:
    """Path of the mark of a terminal; OSError if it is no terminal, or there is no private folder."""
    os.ttyname(fd)
    return private_folder() / f"terminal-{os.fstat(fd).st_rdev}"
