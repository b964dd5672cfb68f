"""Writes files so that they are complete or absent, even where the file system refuses modes, syncs or replacing an open file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import shutil
from functools import partial
from pathlib import Path

_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})  # FUSE, some network disks
_REPLACE_REFUSED = _UNSUPPORTED | {errno.EACCES, errno.EPERM, errno.EBUSY, errno.EEXIST, errno.ETXTBSY}
"""Errors of SMB and some FUSE file systems when a file is renamed over one that another process has open."""


def write_atomically(path: Path, data: bytes, *, durable: bool = False, private: bool = True) -> None:
    """Replace a file's content so that no reader sees it half written; on an OSError it keeps its old content.

    The folder must exist. `durable` waits until content and name survive a power failure. A `private` file is readable
    by this user only; otherwise the umask decides.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=partial(os.open, mode=0o600) if private else None) as file:
            file.write(data)
            file.flush()
            if durable:
                sync(file.fileno())
        replace_file(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def replace_file(temporary: Path, path: Path) -> None:
    """Rename a file over another one; if the file system refuses, copy its content, which readers may then see half of.

    On an OSError the other file keeps its old content.
    """
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _REPLACE_REFUSED:
            raise
        before = path.read_bytes() if path.is_file() else None
        try:
            _overwrite(path, temporary.read_bytes())
        except OSError:
            if before is not None:
                with contextlib.suppress(OSError):
                    _overwrite(path, before)
            raise
        temporary.unlink()


def _overwrite(path: Path, data: bytes) -> None:
    """Write a file in place. A link is refused (ELOOP), as it would lead elsewhere."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        file.write(data)
        file.flush()
        sync(file.fileno())


def set_mode(path: Path, mode: int) -> None:
    """Set a file's mode, if the file system has modes: SMB, FAT and gvfs give all files the mode of the mount."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def free_bytes(folder: Path) -> float:
    """Free bytes of a file system; infinite if it reports none (gvfs and some FUSE report a size of 0)."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return math.inf
    return usage.free if usage.total else math.inf


def probe(folder: Path) -> bool:
    """Whether files in a folder can be locked; OSError when they cannot be written, replaced, appended to and read."""
    path = folder / f".r18-tui-{os.getpid()}.probe"
    try:
        for content in (b"1", b"22"):
            write_atomically(path, content, durable=True)
        with path.open("ab") as file:
            file.write(b"3")
            file.flush()
            locks = try_lock(file.fileno(), fcntl.LOCK_EX)
        if path.read_bytes() != b"223":
            raise OSError("the data read back differs from the data written")
    finally:
        path.unlink(missing_ok=True)
    return locks is not None


_NO_LOCKS = _UNSUPPORTED | {errno.ENOLCK}  # FUSE and network file systems without locks


def try_lock(fd: int, kind: int) -> bool | None:
    """Lock a file (`fcntl.LOCK_EX` or `LOCK_SH`) without waiting: False when another process has it, None without locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def is_same_file(fd: int, path: Path) -> bool:
    """Whether a path leads to the open file or directory, which may have been moved or deleted."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def umask_mode() -> int:
    """The mode that the umask gives to a new file."""
    umask = os.umask(0o077)  # the only way to read it; meanwhile files of other threads are not less private
    os.umask(umask)
    return 0o666 & ~umask


def sync(fd: int) -> None:
    """Wait until a file's content would survive a power failure, where supported; OSError when it cannot be written."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure, if the file system supports that."""
    with contextlib.suppress(OSError):  # some network file systems refuse to sync a folder
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def unused_path(path: Path) -> Path:
    """The path itself, or with a number after its name if such a file exists."""
    number, found = 2, path
    while found.exists():
        found = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return found
