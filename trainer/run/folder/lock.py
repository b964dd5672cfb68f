"""Ownership of a run: the lock of its only writer, the facts in the locked file, and the presence of a trainer."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

import orjson

from trainer.errors import RunError
from trainer.host.atomic_files import is_same_file, try_lock
from trainer.run.folder.run_dir import RunDir, list_runs
from trainer.run.status import LOST_AFTER_S, Presence

_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 3, 0.05
"""More than one, since `is_live` in another process also holds the lock for some microseconds."""


class RunLock:
    """The right to write to a run: an flock on `trainer.json`, which names the owner while it is held.

    The file is emptied on release and never removed, since another process may be waiting on it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owner = _identity()
        self.publish_facts()

    @classmethod
    def take(cls, run_dir: RunDir) -> RunLock:
        """Become the only writer of a run; RunError when another process owns it, or the file cannot be created."""
        try:
            fd = os.open(run_dir.trainer, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise RunError(f"{run_dir.path}: cannot be written: {error.strerror}") from error
        try:
            for _ in range(_LOCK_ATTEMPTS):
                if (free := try_lock(fd, fcntl.LOCK_EX)) is not False:
                    _refuse_if_trained_elsewhere(run_dir, free)
                    return cls(fd)
                time.sleep(_LOCK_PAUSE_S)
        except RunError:
            os.close(fd)
            raise
        except OSError as error:
            os.close(fd)
            raise RunError(f"{run_dir.trainer}: cannot be locked: {error.strerror}") from error
        os.close(fd)
        raise RunError(_taken_message(run_dir))

    def is_on(self, run_dir: RunDir) -> bool:
        """Whether the locked file is that of this directory."""
        return is_same_file(self._fd, run_dir.trainer)

    def renew(self, run_dir: RunDir) -> None:
        """Take the lock of a directory whose file was created again, or is missing; RunError as in `take`."""
        facts, old = self._owner, self._fd
        fresh = RunLock.take(run_dir)
        self._fd = fresh._fd
        os.close(old)
        self.publish_facts(**facts)

    def publish_facts(self, **facts: object) -> None:
        """Publish facts about the owner: its socket, or that its run has ended though its screen is still open."""
        self._owner |= facts
        self._write_facts(orjson.dumps(self._owner))

    def release(self) -> None:
        """Release the lock; safe to call twice."""
        if self._fd < 0:
            return
        self._write_facts(b"")
        os.close(self._fd)
        self._fd = -1

    def _write_facts(self, content: bytes) -> None:
        # In place: a new file under this name would carry no lock.
        with contextlib.suppress(OSError):  # a full disk must not prevent training or exiting
            # Written before it is truncated: a full disk leaves the file as it was, and a reader meanwhile finds
            # the new content followed by blanks.
            os.pwrite(self._fd, content.ljust(os.fstat(self._fd).st_size), 0)
            os.ftruncate(self._fd, len(content))


def presence(run_dir: RunDir) -> Presence:
    """Whether a run has a trainer. A killed one leaves its facts in the file and no lock, one that has ended an empty file."""
    locked = _locked(run_dir)
    if locked:
        return Presence.THERE
    owner = read_owner(run_dir)
    if owner is None:
        return Presence.GONE if run_dir.trainer.exists() else Presence.UNKNOWN
    return Presence.GONE if locked is False and _lock_reaches(owner) else Presence.UNKNOWN


def is_live(run_dir: RunDir) -> bool:
    """Whether a process owns a run; if its lock cannot be seen from here, a recent log counts as one."""
    locked = _locked(run_dir)
    return bool(locked) or _owner_by_log(run_dir, locked) is not None


def _owner_by_log(run_dir: RunDir, locked: bool | None) -> dict[str, Any] | None:
    """Owner whose lock cannot be seen from here (another machine, no locks) but whose log is recent; else None."""
    owner = read_owner(run_dir)
    seen = locked is not None and owner is not None and _lock_reaches(owner)
    return owner if owner and not seen and _silence_s(run_dir) < LOST_AFTER_S else None


def _locked(run_dir: RunDir) -> bool | None:
    """Whether another process has the lock; None if that is unknown."""
    try:
        fd = os.open(run_dir.trainer, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        free = try_lock(fd, fcntl.LOCK_SH)
        return None if free is None else not free
    except OSError:
        return None
    finally:
        os.close(fd)


def _silence_s(run_dir: RunDir) -> float:
    """Seconds since the log was last written to; absolute, since the clocks of two machines may differ."""
    try:
        return abs(time.time() - run_dir.events.stat().st_mtime)
    except OSError:
        return math.inf


def read_owner(run_dir: RunDir) -> dict[str, Any] | None:
    """Facts about the owner of a run: those of `_identity`, `socket` where it takes commands, `ended` when it is over."""
    try:
        owner = orjson.loads(run_dir.trainer.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return owner if isinstance(owner, dict) else None


def on_this_machine(owner: dict[str, Any]) -> bool:
    """Whether an owner has started on this machine since its boot; its host name may change."""
    ours = boot_id()
    return owner.get("boot_id") == ours if ours else owner.get("host") == socket.gethostname()


def pid_here(owner: dict[str, Any]) -> int | None:
    """Process id of the owner in this PID namespace; None if it is on another machine or in another container."""
    same = on_this_machine(owner) and owner.get("pid_namespace", _pid_namespace()) == _pid_namespace()
    return owner.get("pid") if same else None


def stop_advice(owner: dict[str, Any]) -> str:
    """Instruction for stopping the owner of a run from here."""
    pid = pid_here(owner)
    if pid is None:
        return "stop it in its own container or on its own machine: its process id differs here"
    return f"stop it with: kill -TERM {pid}"


def _lock_reaches(owner: dict[str, Any]) -> bool:
    """Whether the lock of an owner would be visible here: it is, or was before a restart, on this machine."""
    return on_this_machine(owner) or owner.get("host") == socket.gethostname()


def stopped_pid(run_dir: RunDir) -> int | None:
    """Process id of the owner if it is suspended (SIGSTOP, ctrl+z) on this machine; None otherwise."""
    pid = pid_here(read_owner(run_dir) or {})
    if type(pid) is not int or not _locked(run_dir):
        return None
    import psutil  # not before the first frame

    try:
        return pid if psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) else None
    except (psutil.Error, ValueError, OverflowError):
        return None  # it has gone, or is in another container


def newest_live(runs_dir: Path) -> RunDir:
    """The live run with the newest event; RunError when there is none."""
    live = next((run for run in list_runs(runs_dir) if is_live(run)), None)
    if live is None:
        raise RunError(f"{runs_dir}: no run is active here; open an ended one with: r18-tui show latest")
    return live


def _refuse_if_trained_elsewhere(run_dir: RunDir, free: bool | None) -> None:
    owner = _owner_by_log(run_dir, None if free is None else not free)
    if owner is not None:
        why = "" if free else "; this file system cannot lock files, so only the age of the log shows it"
        raise RunError(
            f"{run_dir.path}: trained by process {owner.get('pid', '?')} on {owner.get('host', '?')}, whose log was written "
            f"{_silence_s(run_dir):.0f} s ago; continue it there, or wait until the log is {LOST_AFTER_S:.0f} s old"
            f"{why}"
        )


def _taken_message(run_dir: RunDir) -> str:
    owner = read_owner(run_dir) or {}
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    problem = f"this run is already active in {who}; attach with: {run_dir.attach_command()}   or"
    if owner.get("ended"):
        problem = f"this run has ended, but its dashboard is still open in {who}; close it with q, or"
    return f"{run_dir.path}: {problem} {stop_advice(owner)}"


def boot_id() -> str:
    """Identifier of this boot of this machine; empty where the system has none (outside Linux)."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pid_namespace() -> str:
    """Identifier of the PID namespace, which differs between containers; empty outside Linux."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _identity() -> dict[str, Any]:
    return {
        "pid": os.getpid(), "pid_namespace": _pid_namespace(), "host": socket.gethostname(), "boot_id": boot_id(),
        "started": round(time.time(), 3),
    }  # fmt: skip
