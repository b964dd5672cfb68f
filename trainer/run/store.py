"""The run directory: its places, its name, its lock, and how a run is found again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from trainer.errors import RunError
from trainer.run.atomic import write_atomically


def default_runs_dir() -> Path:
    """Where runs are kept unless `--runs-dir` says otherwise: `runs/` in the current folder."""
    return Path("runs")


@dataclass
class RunDir:
    """A run's directory. Attributes are places; none of them need exist.

    Attributes:
        path: The directory itself.
    """

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The fully resolved configuration."""
        return self.path / "config.yaml"

    @property
    def env(self) -> Path:
        """Versions, device and host."""
        return self.path / "env.json"

    @property
    def trainer(self) -> Path:
        """Who trains it: locked and filled while a trainer lives, empty otherwise."""
        return self.path / "trainer.json"

    @property
    def events(self) -> Path:
        """The event log."""
        return self.path / "events.jsonl"

    @property
    def results(self) -> Path:
        """A line an epoch."""
        return self.path / "results.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints and of the pointer files `latest` and `best`."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """Folder of `model.onnx` and `parity.json`."""
        return self.path / "export"

    @property
    def evaluation(self) -> Path:
        """Folder of per-class tables."""
        return self.path / "eval"

    @property
    def log(self) -> Path:
        """Tracebacks, and what libraries printed under the dashboard."""
        return self.path / "log.txt"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Everything that is a folder in a run directory."""
        return self.checkpoints, self.export, self.evaluation

    def resume_command(self) -> str:
        """What to type to go on with this run."""
        return f"r18-tui --resume {shlex.quote(str(self.path))}"

    def attach_command(self) -> str:
        """What to type to come back to this run while it is trained."""
        return f"r18-tui attach {shlex.quote(str(self.path))}"


def create_run(runs_dir: Path, name: str) -> RunDir:
    """Make a new run directory, private to the user, never an existing one.

    Args:
        runs_dir: Folder of runs; made when missing.
        name: Wanted name; `-2`, `-3` ... is appended when it is taken.

    Raises:
        RunError: When the folder cannot be made or written.
    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100_000):
            path = runs_dir / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
                run = RunDir(path)
                for folder in run.folders:
                    folder.mkdir()
                run.log.touch(mode=0o600)
                return run
    except OSError as error:
        raise RunError(
            f"{runs_dir}: cannot keep runs here: {error.strerror or error}; choose another folder with --runs-dir DIR"
        ) from error
    raise RunError(f"{runs_dir}/{name}: too many runs of this name; choose another with --name NAME")


def find_run(reference: str, runs_dir: Path) -> RunDir:
    """The run that a user means.

    Args:
        reference: A directory, a name under `runs_dir`, or `latest`.
        runs_dir: Folder of runs.

    Raises:
        RunError: When there is no such run; the message lists the newest ones.
    """
    if reference == "latest":
        runs = list_runs(runs_dir)
        if not runs:
            raise RunError(f"{runs_dir}: no runs here yet; start one with: r18-tui digits")
        return runs[0]
    for path in (Path(reference), runs_dir / reference):
        if _log_time(RunDir(path)) is not None:
            return RunDir(path)
    known = ", ".join(run.name for run in list_runs(runs_dir)[:8]) or "none"
    raise RunError(f"{reference}: no run of this name; runs in {runs_dir}: {known}")


def newest_live(runs_dir: Path) -> RunDir:
    """The run with the newest event among those that are trained.

    Raises:
        RunError: When none is.
    """
    live = next((run for run in list_runs(runs_dir) if is_live(run)), None)
    if live is None:
        raise RunError(f"{runs_dir}: nobody trains a run here; look at an ended one with: r18-tui show latest")
    return live


def list_runs(runs_dir: Path) -> list[RunDir]:
    """All runs of a folder that may be read, the one with the newest event first."""
    if not runs_dir.is_dir():
        return []
    paths = (path for path in runs_dir.iterdir() if not path.name.startswith("."))
    dated = [(time_, path) for path in paths if (time_ := _log_time(RunDir(path))) is not None]
    return [RunDir(path) for _, path in sorted(dated, reverse=True)]


def _log_time(run_dir: RunDir) -> float | None:
    """When the newest event was written; None where there is no log or it is somebody else's."""
    try:
        found = run_dir.events.stat()
    except OSError:
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None


_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 3, 0.05
"""`is_live` in another process holds the lock for some microseconds, too."""


class RunLock:
    """The right to write to a run: an flock on `trainer.json`, which names the holder while it lasts.

    The file is emptied on release and never removed, since another process may be waiting on it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._holder = _identity()
        self.note()

    @classmethod
    def take(cls, run_dir: RunDir) -> RunLock:
        """Become the run's one writer.

        Raises:
            RunError: When another process is, or the file cannot be made.
        """
        try:
            fd = os.open(run_dir.trainer, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RunError(f"{run_dir.path}: cannot be written: {error.strerror}") from error
        try:
            for _ in range(_LOCK_ATTEMPTS):
                if _try_lock(fd):
                    return cls(fd)
                time.sleep(_LOCK_PAUSE_S)
        except OSError as error:
            os.close(fd)
            raise RunError(f"{run_dir.trainer}: this file system cannot lock files: {error.strerror}") from error
        os.close(fd)
        raise RunError(_taken(run_dir))

    def is_on(self, run_dir: RunDir) -> bool:
        """Whether the file that is held is that of a directory."""
        try:
            return os.path.samestat(os.fstat(self._fd), run_dir.trainer.stat())
        except OSError:
            return False

    def renew(self, run_dir: RunDir) -> None:
        """Hold the lock of a directory whose file was made anew, or is still to be made.

        Raises:
            RunError: When another process has it, or the file cannot be made.
        """
        facts, old = self._holder, self._fd
        fresh = RunLock.take(run_dir)
        self._fd = fresh._fd
        os.close(old)
        self.note(**facts)

    def note(self, **facts: object) -> None:
        """Tell others more about the holder: where it listens, that its run has ended though its screen is still open."""
        self._holder |= facts
        self._fill(orjson.dumps(self._holder))

    def release(self) -> None:
        """Let others write; safe to call twice."""
        if self._fd < 0:
            return
        self._fill(b"")
        os.close(self._fd)
        self._fd = -1

    def _fill(self, content: bytes) -> None:
        # In place: a new file under this name would carry no lock.
        with contextlib.suppress(OSError):  # a full disk must not keep anybody from training or from leaving
            # Written before it is cut: a disk that takes nothing leaves the file as it was, and whoever reads meanwhile finds
            # the new content with blanks behind it.
            os.pwrite(self._fd, content.ljust(os.fstat(self._fd).st_size), 0)
            os.ftruncate(self._fd, len(content))


def _try_lock(fd: int) -> bool:
    """Lock a file for ourselves alone; False when another process has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def is_live(run_dir: RunDir) -> bool:
    """Whether some process holds a run. A killed one leaves its name in the file and no lock."""
    try:
        fd = os.open(run_dir.trainer, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def read_holder(run_dir: RunDir) -> dict[str, Any] | None:
    """Who holds a run: pid, host, boot_id, start time, `socket` where it takes commands, and `ended` where it is over.

    None when nobody says so.
    """
    try:
        holder = orjson.loads(run_dir.trainer.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return holder if isinstance(holder, dict) else None


def trainer_gone(run_dir: RunDir) -> bool:
    """Whether it is certain that nobody holds a run.

    Of a run that another machine trains the lock may not reach this one; then only a long silence says that its trainer has gone.
    """
    holder = read_holder(run_dir) or {}
    return not is_live(run_dir) and (holder.get("host") == socket.gethostname() or on_this_machine(holder))


def on_this_machine(holder: dict[str, Any]) -> bool:
    """Whether a holder, as `read_holder` gives it, was made since this machine was started; a name may change meanwhile."""
    ours = boot_id()
    return holder.get("boot_id") == ours if ours else holder.get("host") == socket.gethostname()


def write_env(run_dir: RunDir, facts: dict[str, Any]) -> None:
    """Keep versions, device and host beside the run."""
    write_atomically(run_dir.env, orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _taken(run_dir: RunDir) -> str:
    holder = read_holder(run_dir) or {}
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    if holder.get("ended"):
        return (
            f"{run_dir.path}: this run has ended, but its dashboard is still open in {who}; "
            f"leave it with q, or with: kill -TERM {holder.get('pid', 'PID')}"
        )
    return (
        f"{run_dir.path}: this run is live already, trained by {who}; "
        f"go to it with: {run_dir.attach_command()}   or stop it with: kill -TERM {holder.get('pid', 'PID')}"
    )


def boot_id() -> str:
    """What tells this start of this machine from others; empty where the system has no such thing (outside Linux)."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _identity() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "boot_id": boot_id(), "started": round(time.time(), 3)}
