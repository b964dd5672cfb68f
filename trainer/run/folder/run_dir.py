"""The run directory: its places, its name, its lock, and how a run is found again."""

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

    def mistakes(self, split: str) -> Path:
        """Pictures of the most confident mistakes of the newest evaluation of a split."""
        return self.evaluation / f"mistakes-{split}.png"

    @property
    def training_images(self) -> Path:
        """Pictures as the network sees them."""
        return self.evaluation / "training.png"

    @property
    def sinks(self) -> Path:
        """Folder of what trackers keep of it, by their names."""
        return self.path / "sinks"

    @property
    def report(self) -> Path:
        """The run as a page for a browser."""
        return self.path / "report.html"

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


def refuse_links(run_dir: RunDir) -> None:
    """Refuse to write to a run directory with links in it: one that somebody made may lead anywhere.

    Raises:
        RunError: With the first one.
    """
    pending = [run_dir.path]
    while pending:
        try:
            entries = sorted(pending.pop().iterdir())
        except OSError:
            continue  # what needs it says so
        for path in entries:
            if path.is_symlink():
                raise RunError(
                    f"{path}: is a link to {path.readlink()}, and nothing is written outside a run's directory; put the file or "
                    f"folder itself in its place, or remove the link"
                )
            if path.is_dir():
                pending.append(path)


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
        if log_stat(str(path)) is not None:
            return RunDir(path)
    known = ", ".join(run.name for run in list_runs(runs_dir)[:8]) or "none"
    raise RunError(f"{reference}: no run of this name; runs in {runs_dir}: {known}")


def run_of_file(path: Path) -> RunDir | None:
    """The run whose checkpoint or export a file is; None for any other file."""
    run_dir = RunDir(path.absolute().parent.parent)
    return run_dir if run_dir.config.is_file() and path.absolute().parent in run_dir.folders else None


def list_runs(runs_dir: Path) -> list[RunDir]:
    """All runs of a folder that may be read, the one with the newest event first."""
    return [RunDir(Path(path)) for path, _ in list_logs(runs_dir)]


def list_logs(runs_dir: Path) -> list[tuple[str, os.stat_result]]:
    """The run directories of a folder and the state of each one's log, the newest event first; a cheap look at thousands.

    Raises:
        OSError: When the folder exists and cannot be read.
    """
    if not runs_dir.is_dir():
        return []
    with os.scandir(runs_dir) as entries:
        paths = sorted(entry.path for entry in entries if not entry.name.startswith("."))
    found = [(path, log) for path in paths if (log := log_stat(path)) is not None]
    return sorted(found, key=lambda one: -one[1].st_mtime_ns)


def log_stat(run_dir: str) -> os.stat_result | None:
    """The state of a run's log; None where there is none or it is somebody else's."""
    try:
        found = os.stat(f"{run_dir}/events.jsonl")
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def write_env(run_dir: RunDir, facts: dict[str, Any]) -> None:
    """Keep versions, device and host beside the run, and the folder that relative paths in its configuration start from."""
    with contextlib.suppress(FileNotFoundError):  # that folder was deleted
        facts = facts | {"folder": os.getcwd()}
    write_atomically(run_dir.env, orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def started_in(run_dir: RunDir) -> Path | None:
    """The folder that relative paths in a run's configuration start from; None where no one kept it."""
    try:
        folder = orjson.loads(run_dir.env.read_bytes())["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(folder) if isinstance(folder, str) else None
