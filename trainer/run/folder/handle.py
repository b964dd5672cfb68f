"""A run directory held open by its writer: its current path, even after it was moved or deleted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from pathlib import Path

from trainer.host.atomic_files import is_same_file
from trainer.run.folder.run_dir import RunDir

_F_GETPATH = 50  # from macOS's fcntl.h: the path of an open descriptor


class RunDirHandle(RunDir):
    """The directory behind an open descriptor. `follow` updates `path` after a move."""

    def __init__(self, path: Path) -> None:
        """Open the directory; OSError when it does not exist."""
        super().__init__(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def follow(self) -> bool:
        """Update the path after a move; False once the directory was deleted."""
        if is_same_file(self._fd, self.path):
            return True
        moved = self._where()
        if moved is None or not is_same_file(self._fd, moved):
            return False
        self.path = moved
        return True

    def switch_to(self, path: Path) -> None:
        """Hold another directory in place of a deleted one; OSError when it does not exist."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(self._fd)
        self._fd, self.path = fd, path

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)
        self._fd = -1

    def _where(self) -> Path | None:
        """Current path of the descriptor; None if the system reports none, or the directory was deleted."""
        with contextlib.suppress(OSError):
            if sys.platform == "darwin":
                name = fcntl.fcntl(self._fd, _F_GETPATH, b"\0" * 1024)
                return Path(os.fsdecode(name.rstrip(b"\0")))
            return Path(os.readlink(f"/proc/self/fd/{self._fd}"))
        return None


def redirect_output_to(log: Path) -> None:
    """Redirect output that went to a deleted log to a new one."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for output in (1, 2):
            with contextlib.suppress(OSError):  # closed: nothing is printed
                found = os.fstat(output)
                if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    os.dup2(fd, output)
    finally:
        os.close(fd)
