"""The run directory: its paths, its name, and how to find a run."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from trainer.errors import RunError
from trainer.host.atomic_files import write_atomically


def default_runs_dir() -> Path:
    """Default of `--runs-dir`: `runs/` in the current folder."""
    return Path("runs")


class _PathInside:
    """Path of a fixed name inside a run's directory, computed at each access because the directory may move."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run_dir: RunDir, owner: type[RunDir]) -> Path:
        return run_dir.path / self._name


@dataclass
class RunDir:
    """A run's directory. Its other attributes are paths, which need not exist."""

    path: Path

    config = _PathInside("config.yaml")  # the fully resolved configuration
    env = _PathInside("env.json")  # versions, device and host
    trainer = _PathInside("trainer.json")  # facts about the owner; locked while a trainer lives, empty otherwise
    events = _PathInside("events.jsonl")  # the event log
    results = _PathInside("results.csv")  # results table, one line per epoch
    checkpoints = _PathInside("checkpoints")  # folder of checkpoints and of the pointer files `latest` and `best`
    export = _PathInside("export")  # folder of `model.onnx` and `parity.json`
    evaluation = _PathInside("eval")  # folder of per-class tables
    training_images = _PathInside("eval/training.png")  # pictures of training images as the network receives them
    sinks = _PathInside("sinks")  # folder of the state of trackers, by name
    report = _PathInside("report.html")  # report of the run as a page for a browser
    log = _PathInside("log.txt")  # tracebacks, and what libraries printed under the dashboard

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def folders(self) -> tuple[Path, ...]:
        """All subfolders that a new run gets."""
        return self.checkpoints, self.export, self.evaluation

    def mistakes(self, split: str) -> Path:
        """Pictures of the most confident mistakes of the newest evaluation of a split."""
        return self.evaluation / f"mistakes-{split}.png"

    def resume_command(self) -> str:
        """The command that resumes this run."""
        return f"r18-tui --resume {shlex.quote(str(self.path))}"

    def attach_command(self) -> str:
        """The command that attaches to this run while it is trained."""
        return f"r18-tui attach {shlex.quote(str(self.path))}"


def create_run(runs_dir: Path, name: str) -> RunDir:
    """Create a private run directory, with `-2`, `-3` ... after a name that is taken; RunError when it cannot be created."""
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


def refuse_links(run_dir: RunDir) -> None:
    """Raise RunError at the first link in a run directory that is to be written to: it may lead anywhere."""
    for place, folders, files in os.walk(run_dir.path):  # code that needs an unreadable folder reports it
        folders.sort()  # `os.walk` enters them in this order
        for path in (Path(place, name) for name in sorted(folders + files)):
            if path.is_symlink():
                raise RunError(
                    f"{path}: is a link to {path.readlink()}, but nothing is written outside a run's directory; replace the "
                    f"link with the file or folder itself, or delete it"
                )


def find_run(reference: str, runs_dir: Path) -> RunDir:
    """Find a run by directory, name or `latest`; RunError, which lists the newest runs, when there is no such run."""
    if reference == "latest":
        runs = list_runs(runs_dir)
        if not runs:
            raise RunError(f"{runs_dir}: no runs here yet; start one with: r18-tui digits")
        return runs[0]
    for path in (Path(reference), runs_dir / reference):
        if log_stat(str(path)) is not None:
            return RunDir(path)
    known = ", ".join(run.name for run in list_runs(runs_dir)[:8]) or "none"
    raise RunError(f"{reference}: no run of this name; runs in {runs_dir}: {known}")


def run_of_file(path: Path) -> RunDir | None:
    """The run to which a checkpoint or export belongs; None for any other file."""
    run_dir = RunDir(path.absolute().parent.parent)
    return run_dir if run_dir.config.is_file() and path.absolute().parent in run_dir.folders else None


def list_runs(runs_dir: Path) -> list[RunDir]:
    """All readable runs of a folder, the one with the newest event first."""
    return [RunDir(Path(path)) for path, _ in list_logs(runs_dir)]


def list_logs(runs_dir: Path) -> list[tuple[str, os.stat_result]]:
    """Run directories and the state of their logs, the newest event first; OSError when the folder exists but is unreadable."""
    if not runs_dir.is_dir():
        return []
    with os.scandir(runs_dir) as entries:
        paths = sorted(entry.path for entry in entries if not entry.name.startswith("."))
    found = [(path, log) for path in paths if (log := log_stat(path)) is not None]
    return sorted(found, key=lambda one: -one[1].st_mtime_ns)


def log_stat(run_dir: str) -> os.stat_result | None:
    """State of a run's log; None if there is none or it belongs to another user."""
    try:
        found = os.stat(f"{run_dir}/events.jsonl")
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def write_env(run_dir: RunDir, facts: dict[str, Any]) -> None:
    """Write versions, device and host to the run, and the folder to which paths in its configuration are relative."""
    with contextlib.suppress(FileNotFoundError):  # the current folder was deleted
        facts = facts | {"folder": os.getcwd()}
    write_atomically(run_dir.env, orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def started_in(run_dir: RunDir) -> Path | None:
    """The folder to which paths in a run's configuration are relative; None if it was not recorded."""
    try:
        folder = orjson.loads(run_dir.env.read_bytes())["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(folder) if isinstance(folder, str) else None
