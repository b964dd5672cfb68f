"""The user's private folder for state of this machine and this boot: sockets, and changes to a terminal."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def private_folder(parent: Path = Path("/tmp")) -> Path:  # noqa: S108 - owner and mode are checked
    """The private folder, created when missing; OSError when it cannot be created, or others have access to it."""
    folder = parent / f"r18-tui-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder that only this user may enter (mode 0700)")
    return folder
